// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Info is what a client needs to know about a simulator.
type Info struct {
	TenantID      string `json:"tenant_id"`
	ClientID      string `json:"client_id"`
	ClientSecret  string `json:"client_secret"`
	URL           string `json:"url"`
	CACertificate string `json:"ca_certificate"`
	// ObjectID is the application's object id, which is in no token.
	ObjectID string `json:"object_id"`
	// MetadataURL is empty until the metadata service runs.
	MetadataURL    string `json:"metadata_url"`
	IdentityHeader string `json:"identity_header"`
}

// WaitRequest names the counts to wait for, and how long.
type WaitRequest struct {
	Operation Operation `json:"operation"`
	Calls
	// Timeout is a Go duration; empty means as long as the client waits.
	Timeout string `json:"timeout,omitempty"`
}

// Info describes the simulator's current state.
func (s *Simulator) Info() Info {
	app := s.App()
	return Info{
		TenantID:       app.TenantID,
		ClientID:       app.ClientID,
		ClientSecret:   app.ClientSecret,
		URL:            s.URL(),
		CACertificate:  s.CACertificate(),
		ObjectID:       s.current().objectID,
		MetadataURL:    s.MetadataURL(),
		IdentityHeader: s.IdentityHeader(),
	}
}

func (s *Simulator) controlInfo(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, s.Info())
}

func (s *Simulator) controlCalls(w http.ResponseWriter, _ *http.Request) {
	all := map[Operation]Calls{}
	for _, op := range Operations() {
		all[op] = s.Calls(op)
	}
	reply(w, http.StatusOK, all)
}

func (s *Simulator) controlIssued(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, s.Issued())
}

// controlInject accepts a fault or a list of faults.
func (s *Simulator) controlInject(w http.ResponseWriter, r *http.Request) {
	var raw json.RawMessage
	if !request(w, r, &raw) {
		return
	}
	if !bytes.HasPrefix(raw, []byte("[")) {
		raw = json.RawMessage("[" + string(raw) + "]")
	}
	var faults []Fault
	err := json.Unmarshal(raw, &faults)
	if err == nil {
		err = s.inject(faults)
	}
	done(w, err)
}

func (s *Simulator) controlClear(w http.ResponseWriter, _ *http.Request) {
	s.Clear()
	done(w, nil)
}

func (s *Simulator) controlPortal(w http.ResponseWriter, _ *http.Request) {
	s.RegenerateInPortal()
	done(w, nil)
}

// controlWait answers with the counts as soon as they are reached, or with 408.
func (s *Simulator) controlWait(w http.ResponseWriter, r *http.Request) {
	var wait WaitRequest
	if !request(w, r, &wait) {
		return
	}
	if !slices.Contains(Operations(), wait.Operation) {
		done(w, fmt.Errorf("unknown operation %q", wait.Operation))
		return
	}
	ctx := r.Context()
	if wait.Timeout != "" {
		timeout, err := time.ParseDuration(wait.Timeout)
		if err != nil {
			done(w, err)
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var reached Calls
	err := s.Wait(ctx, wait.Operation, func(now Calls) bool {
		reached = now
		return now.atLeast(wait.Calls)
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusRequestTimeout, err)
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, err)
	default:
		reply(w, http.StatusOK, reached)
	}
}

// request reads a JSON body, or refuses the request.
func request(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("reading the request: %w", err))
		return false
	}
	return true
}

// done answers a request that has no result but an error.
func done(w http.ResponseWriter, err error) {
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// controlError is the body of every refusal by the control interface.
type controlError struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, err error) {
	reply(w, status, controlError{Error: err.Error()})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails if the client is gone
}
