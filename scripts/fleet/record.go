// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"time"
)

// record is what happened to one member of the fleet, which alone writes it.
type record struct {
	reads       int
	failedReads int
	latencies   []time.Duration // of the reads that succeeded
	acquired    []acquisition
	problem     error // why the member gave up
}

// acquisition is a member's getting a key that it did not hold before.
type acquisition struct {
	key        string
	at         time.Time
	registered bool // a sensor, with this key
}

// registrar is a tenant, as an installer sees it.
type registrar interface {
	Register(ctx context.Context, key string) (bool, error)
}

// hold records the key that the member holds since a time. With a new key the member
// registers a sensor, as an Agent runs its command when the file has changed.
func (r *record) hold(ctx context.Context, tenant registrar, key string, at time.Time) error {
	if held, ok := r.last(); ok && held.key == key {
		return nil
	}
	registered, err := tenant.Register(ctx, key)
	if err != nil {
		return err
	}
	r.acquired = append(r.acquired, acquisition{key: key, at: at, registered: registered})
	return nil
}

// last returns the key that the member holds.
func (r *record) last() (acquisition, bool) {
	if len(r.acquired) == 0 {
		return acquisition{}, false
	}
	return r.acquired[len(r.acquired)-1], true
}

// read records a read. Its duration counts if it succeeded.
func (r *record) read(took time.Duration, err error) {
	r.reads++
	if err != nil {
		r.failedReads++
		return
	}
	r.latencies = append(r.latencies, took)
}
