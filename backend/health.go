// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-mdi/backend/graph"
)

const healthStorageKey = "health"

// health remembers how the last attempts to regenerate the key went, across
// restarts. It is a report for operators and nothing is decided by it. What cannot
// be stored goes on in memory.
type health struct {
	now func() time.Time

	mu     sync.Mutex
	report *healthReport // as stored; nil if not known
}

type healthReport struct {
	LastError          string    `json:"last_error"` // never contains a secret: see graph.Error
	LastErrorAt        time.Time `json:"last_error_at"`
	LastErrorCause     cause     `json:"last_error_cause"`
	LastErrorCode      string    `json:"last_error_code"`
	LastErrorRequestID string    `json:"last_error_request_id"`
	Failures           int       `json:"consecutive_failures"`
}

// failed records an attempt that failed.
func (h *health) failed(ctx context.Context, s logical.Storage, why cause, failure error) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		*r = healthReport{LastError: explain(failure), LastErrorAt: h.now(), LastErrorCause: why, Failures: r.Failures + 1}
		var remote *graph.Error
		if errors.As(failure, &remote) {
			r.LastErrorCode, r.LastErrorRequestID = remote.Code, remote.RequestID
		}
		return true
	})
}

// succeeded records an attempt that succeeded, which costs a write only after one
// that did not. The last error stays to be read.
func (h *health) succeeded(ctx context.Context, s logical.Storage) error {
	return h.change(ctx, s, func(r *healthReport) bool {
		before := r.Failures
		r.Failures = 0
		return before != 0
	})
}

// get returns the report.
func (h *health) get(ctx context.Context, s logical.Storage) (healthReport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.load(ctx, s)
	if err != nil {
		return healthReport{}, err
	}
	return *h.report, nil
}

func (h *health) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.report = nil
}

func (h *health) change(ctx context.Context, s logical.Storage, edit func(*healthReport) (changed bool)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.load(ctx, s) != nil {
		h.report = &healthReport{}
	}
	if !edit(h.report) {
		return nil
	}
	entry, err := logical.StorageEntryJSON(healthStorageKey, h.report)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

func (h *health) load(ctx context.Context, s logical.Storage) error {
	if h.report != nil {
		return nil
	}
	entry, err := s.Get(ctx, healthStorageKey)
	if err != nil {
		return err
	}
	report := &healthReport{}
	if entry != nil {
		if err := entry.DecodeJSON(report); err != nil {
			return err
		}
	}
	h.report = report
	return nil
}
