// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"errors"
	"fmt"
)

// Operation is a kind of call that the simulator counts and can disturb.
type Operation string

// The operations, in the order in which a client uses them.
const (
	Instance   Operation = "instance"   // Entra: which hosts are Entra's
	Discovery  Operation = "discovery"  // Entra: OpenID configuration of the tenant
	Token      Operation = "token"      // Entra: access token
	Regenerate Operation = "regenerate" // Graph: regenerateDeploymentAccessKey
	Get        Operation = "get"        // Graph: getDeploymentAccessKey
	Package    Operation = "package"    // Graph: getDeploymentPackageUri
	Register   Operation = "register"   // a sensor registers with a key

	ManagedIdentity Operation = "managed-identity" // App Service or metadata service: access token
	Application     Operation = "application"      // Graph: the application with its credentials
	AddPassword     Operation = "add-password"     // Graph: adds a client secret
	RemovePassword  Operation = "remove-password"  // Graph: removes a client secret
	AddKey          Operation = "add-key"          // Graph: adds a certificate
	RemoveKey       Operation = "remove-key"       // Graph: removes a certificate
)

// Operations lists all operations in a stable order.
func Operations() []Operation {
	return []Operation{
		Instance, Discovery, Token, Regenerate, Get, Package, Register,
		ManagedIdentity, Application, AddPassword, RemovePassword, AddKey, RemoveKey,
	}
}

// graph reports whether the operation is a call of Microsoft Graph.
func (op Operation) graph() bool {
	switch op {
	case Regenerate, Get, Package, Application, AddPassword, RemovePassword, AddKey, RemoveKey:
		return true
	default:
		return false
	}
}

// entra reports whether the operation is a call of Entra.
func (op Operation) entra() bool { return op == Instance || op == Discovery || op == Token }

// ErrClosed is what [Simulator.Wait] returns once the simulator is closed.
var ErrClosed = errors.New("the simulator is closed")

// Calls counts the calls of one operation.
type Calls struct {
	// Started counts the calls that arrived, whatever their outcome.
	Started int `json:"started"`
	// Performed counts the calls whose work was done: key replaced, key read, token
	// issued, sensor registered. A refused call performs nothing.
	Performed int `json:"performed"`
	// Answered counts the calls whose answer, a refusal included, was written in full.
	// When a client has received an answer, it is already counted.
	Answered int `json:"answered"`
}

// atLeast reports whether each count is at least that of other.
func (c Calls) atLeast(other Calls) bool {
	return c.Started >= other.Started && c.Performed >= other.Performed && c.Answered >= other.Answered
}

func (c Calls) String() string {
	return fmt.Sprintf("started=%d performed=%d answered=%d", c.Started, c.Performed, c.Answered)
}

// Calls returns the counts of an operation since the simulator was made.
func (s *Simulator) Calls(op Operation) Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Wait blocks until the counts of an operation satisfy a condition. It returns the
// context's error or [ErrClosed] if the context or the simulator ends first.
func (s *Simulator) Wait(ctx context.Context, op Operation, condition func(Calls) bool) error {
	for {
		s.mu.Lock()
		calls, changed := s.calls[op], s.changed
		s.mu.Unlock()
		if condition(calls) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s, now %v: %w", op, calls, ctx.Err())
		case <-s.done:
			return ErrClosed
		}
	}
}

// count changes the counts of an operation and wakes all waiters. The caller holds s.mu,
// so that the count changes together with what it counts.
func (s *Simulator) count(op Operation, change func(*Calls)) {
	calls := s.calls[op]
	change(&calls)
	s.calls[op] = calls
	close(s.changed)
	s.changed = make(chan struct{})
}

func started(c *Calls)    { c.Started++ }
func performed(c *Calls)  { c.Performed++ }
func answered(c *Calls)   { c.Answered++ }
func unanswered(c *Calls) { c.Answered-- }
