// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// maxRequest bounds what is read of a request, in bytes.
const maxRequest = 1 << 20

// exchange is one counted call: a request, the fault that disturbs it, and the
// connection that takes the answer.
type exchange struct {
	sim       *Simulator
	op        Operation
	w         http.ResponseWriter
	r         *http.Request
	body      []byte
	requestID string
	fault     Fault
	released  <-chan struct{} // of the time of arrival: closed by the next Clear
}

// work does what a call is there for and returns the answer to it.
type work func(*exchange) answer

// call makes the handler of an operation out of its work: it counts the call,
// reads it, and lets a fault interfere.
func (s *Simulator) call(op Operation, do work) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{sim: s, op: op, w: w, r: r, requestID: uuid.NewString()}
		x.arrive()
		// Only a request that has been read to its end lets the server notice
		// that the client goes away.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			x.drop(false)
			return
		}
		x.body = body
		x.run(do)
	})
}

// arrive takes the fault together with the channel that releases it, so that no
// Clear can fall between the two.
func (x *exchange) arrive() {
	s := x.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	x.fault = s.takeFault(x.op)
	x.released = s.released
	s.count(x.op, started)
}

func (x *exchange) run(do work) {
	switch {
	case x.fault.AfterWork:
		x.runThenFail(do)
	case x.fault.Stubborn && x.fault.drops():
		x.runAfterDrop(do)
	default:
		x.failOrRun(do)
	}
}

// failOrRun lets the fault strike first, and does the work if that lets it.
func (x *exchange) failOrRun(do work) {
	ctx := x.r.Context()
	if x.fault.Stubborn {
		ctx = context.WithoutCancel(ctx)
	}
	if !x.hold(ctx) {
		x.drop(false)
		return
	}
	if x.fault.fails() {
		x.fail()
		return
	}
	x.write(do(x))
}

// runThenFail does the work, and then lets the fault strike.
func (x *exchange) runThenFail(do work) {
	good := do(x)
	switch {
	case !x.hold(x.r.Context()):
		x.drop(false)
	case x.fault.fails():
		x.fail()
	default:
		x.write(good)
	}
}

// runAfterDrop does the work of a request whose client already knows that the
// connection is broken.
func (x *exchange) runAfterDrop(do work) {
	x.drop(x.fault.Reset)
	if x.hold(context.WithoutCancel(x.r.Context())) {
		do(x)
	}
}

// hold waits for the fault's latency, and less if Clear is called. It returns
// false if the call is over: the context has ended, or the simulator is closed.
func (x *exchange) hold(ctx context.Context) bool {
	if x.fault.Latency == 0 {
		return true
	}
	timer := time.NewTimer(x.fault.Latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.released:
		return true
	case <-ctx.Done():
		return false
	case <-x.sim.done:
		return false
	}
}

// fail answers as the fault says, or breaks the connection.
func (x *exchange) fail() {
	if x.fault.drops() {
		x.drop(x.fault.Reset)
		return
	}
	a := x.failure()
	if x.fault.RetryAfter != "" {
		a.header.Set("Retry-After", x.fault.RetryAfter)
	}
	x.write(a)
}

// failure is the answer that the fault asks for, in the style of the service.
func (x *exchange) failure() answer {
	const text = "The simulator was told to fail."
	status, code := x.fault.Status, x.fault.Code
	var a answer
	switch {
	case x.fault.Claims:
		return x.challenge()
	case x.op == Discovery || x.op == Token:
		a = x.entraFailure(status, code, text)
	case x.op.graph():
		a = x.graphError(status, code, text)
	case x.op == ManagedIdentity:
		a = metadataError(status, code, text)
	default:
		a = sensorError(status, text)
	}
	if status < http.StatusBadRequest {
		a.header.Set("Location", x.r.URL.RequestURI())
	}
	return a
}

// drop breaks the connection, with a TCP reset or by closing it.
func (x *exchange) drop(reset bool) {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // drops it, too, as far as the server can
	}
	if reset {
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn() // closing the outer one would say goodbye
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the client may be gone already
		}
	}
	_ = conn.Close()
}
