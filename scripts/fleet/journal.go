// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"sync"
	"time"
)

// journal is what happened to one member of the fleet.
type journal struct {
	mu          sync.Mutex
	reads       int
	failedReads int
	latencies   []time.Duration // of the reads that succeeded
	acquired    []acquisition
	problem     error // why the member gave up
}

// acquisition is that a member came to hold a key that it did not hold before.
type acquisition struct {
	key        string
	at         time.Time
	registered bool // a sensor could be registered with it
}

// registrar is a tenant, as an installer sees it.
type registrar interface {
	Register(ctx context.Context, key string) (bool, error)
}

// hold notes that the member holds a key since a time. If it is another than before,
// the member registers a sensor with it, as an Agent runs its command when the file
// has changed.
func (j *journal) hold(ctx context.Context, tenant registrar, key string, at time.Time) error {
	if held, ok := j.last(); ok && held.key == key {
		return nil
	}
	registered, err := tenant.Register(ctx, key)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acquired = append(j.acquired, acquisition{key: key, at: at, registered: registered})
	return nil
}

// last returns the key that the member holds.
func (j *journal) last() (acquisition, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.acquired) == 0 {
		return acquisition{}, false
	}
	return j.acquired[len(j.acquired)-1], true
}

// read notes a read; took counts if it succeeded.
func (j *journal) read(took time.Duration, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reads++
	if err != nil {
		j.failedReads++
		return
	}
	j.latencies = append(j.latencies, took)
}

// giveUp notes why the member stopped before its time.
func (j *journal) giveUp(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.problem = err
}
