// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// BodyKind is a way to spoil the body of an answer.
type BodyKind string

// The kinds of body. Each spoils the answer that would be sent otherwise, whether a good
// one or that of the fault's Status.
const (
	BodyProper           BodyKind = ""                   // as documented
	BodyHTML             BodyKind = "html"               // a proxy's page, without Graph's headers
	BodyEmpty            BodyKind = "empty"              // no bytes
	BodyTruncated        BodyKind = "truncated"          // the connection breaks in the middle
	BodyWrongContentType BodyKind = "wrong-content-type" // good JSON that claims to be plain text
	BodyDisagreeing      BodyKind = "disagreeing-keys"   // a second key under another name
	// BodyMalformed is JSON without its end that still contains all secrets.
	BodyMalformed BodyKind = "malformed-token"
	// BodyOldKey answers a regeneration with the key from before it, as a proxy does that
	// repeats an earlier answer. The key has been replaced only with AfterWork.
	BodyOldKey BodyKind = "old-key"
	BodyNoKey  BodyKind = "no-key" // JSON as documented, but for the key
)

// Fault disturbs calls that match its Operation. Without Status, Claims, Reset, Lost and
// Body it only delays them.
//
// In JSON the fields have names like after_work, and Latency is a string such as "1.5s".
type Fault struct {
	// Operation is the one to disturb; empty means any call of Graph.
	Operation Operation `json:"operation,omitempty"`
	// Times is the number of calls to disturb; 0 means all until Clear.
	Times int `json:"times,omitempty"`
	// AfterWork applies the fault after the work is done, for example after the key is
	// replaced. Otherwise it is applied before, and a failure prevents the work.
	AfterWork bool `json:"after_work,omitempty"`
	// Latency delays the fault. It ends early when the client goes away or Clear is
	// called.
	Latency time.Duration `json:"-"`
	// Stubborn simulates a request that still arrives when the client no longer waits
	// for it: the work is done after the latency, or on Clear, even if the client has
	// gone away. With Reset or Lost the connection breaks at once and the work is done
	// after the latency.
	Stubborn bool `json:"stubborn,omitempty"`
	// Status is that of the answer, 300 to 599; 0 means no failure. A redirect points
	// to the request's own URL, so that following it does the work.
	Status int `json:"status,omitempty"`
	// Code is Graph's error code, or the number of Entra's AADSTS code. The
	// default fits the status.
	Code string `json:"code,omitempty"`
	// RetryAfter is the header, verbatim: seconds or an HTTP date.
	RetryAfter string `json:"retry_after,omitempty"`
	// Claims answers a call of Graph with a claims challenge, 401. From then on Graph
	// refuses its token with the same challenge.
	Claims bool `json:"claims,omitempty"`
	// Body spoils the body of the answer.
	Body BodyKind `json:"body,omitempty"`
	// Reset resets the TCP connection instead of answering.
	Reset bool `json:"reset,omitempty"`
	// Lost closes the connection instead of answering, which a client sees as EOF. Go's
	// transport automatically repeats a GET if that happens on a reused connection.
	Lost bool `json:"lost,omitempty"`
}

// fields has the fields of Fault without its methods.
type fields Fault

type faultJSON struct {
	*fields
	Latency string `json:"latency,omitempty"`
}

// MarshalJSON writes Latency as a string.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := faultJSON{fields: (*fields)(&f)}
	if f.Latency != 0 {
		out.Latency = f.Latency.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON refuses unknown fields, since a misspelled fault could let a test pass for
// the wrong reason.
func (f *Fault) UnmarshalJSON(data []byte) error {
	in := faultJSON{fields: (*fields)(f)}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return err
	}
	if in.Latency == "" {
		return nil
	}
	latency, err := time.ParseDuration(in.Latency)
	f.Latency = latency
	return err
}

// Validate returns why a fault makes no sense, or nil.
func (f Fault) Validate() error {
	switch {
	case f.Operation != "" && !slices.Contains(Operations(), f.Operation):
		return fmt.Errorf("unknown operation %q", f.Operation)
	case f.Times < 0 || f.Latency < 0:
		return errors.New("times and latency cannot be negative")
	case f.Latency == 0 && !f.fails() && f.Body == BodyProper:
		return errors.New("the fault has no effect")
	case f.Reset && f.Lost, f.drops() && (f.Status != 0 || f.Claims || f.Body != BodyProper):
		return errors.New("a connection that breaks carries no answer")
	case f.Stubborn && f.AfterWork:
		return errors.New("stubborn cannot be combined with after-work")
	}
	return errors.Join(f.validateStatus(), f.validateBody())
}

func (f Fault) validateStatus() error {
	switch {
	case f.Status != 0 && (f.Status < 300 || f.Status > 599):
		return fmt.Errorf("status %d is not a failure", f.Status)
	case f.Claims && (f.Status != 0 && f.Status != 401 || !f.matchesGraph()):
		return errors.New("a claims challenge is a 401 of Graph")
	case (f.Code != "" || f.RetryAfter != "") && f.Status == 0 && !f.Claims:
		return errors.New("code and retry-after belong to a status")
	}
	if f.Code != "" && f.Operation.entra() {
		if _, err := strconv.Atoi(f.Code); err != nil {
			return errors.New("the code must be the number of an AADSTS code")
		}
	}
	return nil
}

func (f Fault) validateBody() error {
	switch f.Body {
	case BodyProper, BodyHTML, BodyEmpty, BodyTruncated, BodyWrongContentType, BodyMalformed:
		return nil
	case BodyOldKey:
		if f.fails() || f.Operation != Regenerate {
			return errors.New("only the answer of a regeneration can have an old key")
		}
		return nil
	case BodyDisagreeing, BodyNoKey:
		if f.fails() || f.Operation != Regenerate && f.Operation != Get {
			return errors.New("only an answer with a key can disagree with itself, or lack the key")
		}
		return nil
	default:
		return fmt.Errorf("unknown body %q", f.Body)
	}
}

func (f Fault) matchesGraph() bool { return f.Operation == "" || f.Operation.graph() }

func (f Fault) matches(op Operation) bool {
	return f.Operation == op || f.Operation == "" && op.graph()
}

// drops reports whether the fault breaks the connection.
func (f Fault) drops() bool { return f.Reset || f.Lost }

// fails reports whether the fault replaces the good answer.
func (f Fault) fails() bool { return f.drops() || f.Status != 0 || f.Claims }

// Inject queues faults. A call consumes the first one that matches. Inject panics if a
// fault is invalid, since that is a mistake in the test.
func (s *Simulator) Inject(faults ...Fault) {
	if err := s.inject(faults); err != nil {
		panic("graphtest: " + err.Error())
	}
}

func (s *Simulator) inject(faults []Fault) error {
	for _, f := range faults {
		if err := f.Validate(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
	return nil
}

// Clear removes all faults and releases the calls that they hold: the latency ends, and
// the rest of the fault still happens. It also releases a call whose client has just gone
// away if the server has not noticed that yet.
func (s *Simulator) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	close(s.released)
	s.released = make(chan struct{})
}

// takeFault consumes the first fault for an operation. Without one it returns a fault
// that does nothing. The caller holds s.mu.
func (s *Simulator) takeFault(op Operation) Fault {
	for i, f := range s.faults {
		if !f.matches(op) {
			continue
		}
		switch f.Times {
		case 0: // stays until Clear
		case 1:
			s.faults = slices.Delete(s.faults, i, i+1)
		default:
			s.faults[i].Times--
		}
		return f
	}
	return Fault{}
}
