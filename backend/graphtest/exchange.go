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

// maxRequest limits the size of a request, in bytes.
const maxRequest = 1 << 20

// exchange is one counted call: a request, the fault that disturbs it, and the connection
// for the answer.
type exchange struct {
	sim       *Simulator
	op        Operation
	w         http.ResponseWriter
	r         *http.Request
	body      []byte
	requestID string
	fault     Fault
	released  <-chan struct{} // closed by the first Clear after the request arrived
}

// work does the work of a call and returns the answer.
type work func(*exchange) answer

// call returns the handler of an operation. It counts the call, reads the request, and
// applies a fault.
func (s *Simulator) call(op Operation, do work) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{sim: s, op: op, w: w, r: r, requestID: uuid.NewString()}
		x.arrive()
		// The server notices that a client goes away only once it has read the whole
		// request.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			x.drop(false)
			return
		}
		x.body = body
		x.run(do)
	})
}

// arrive takes a fault together with the channel that releases it, so that Clear cannot
// come between the two.
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

// failOrRun applies the fault first and does the work unless the fault is a failure.
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

// runThenFail does the work and then applies the fault.
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

// runAfterDrop breaks the connection and does the work afterwards.
func (x *exchange) runAfterDrop(do work) {
	x.drop(x.fault.Reset)
	if x.hold(context.WithoutCancel(x.r.Context())) {
		do(x)
	}
}

// hold waits for the fault's latency or until Clear is called. It returns false if the
// context or the simulator ends first.
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

// fail answers as the fault says or breaks the connection.
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

// failure returns the fault's answer, in the style of the service.
func (x *exchange) failure() answer {
	const text = "The simulator was told to fail."
	status, code := x.fault.Status, x.fault.Code
	var a answer
	switch {
	case x.fault.Claims:
		return x.challenge()
	case x.op.entra():
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

// drop breaks the connection, with a TCP reset or an ordinary close.
func (x *exchange) drop(reset bool) {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // drops the connection as well as the server can
	}
	if reset {
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn() // closing the outer one would send a close_notify
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails only if the client is already gone
		}
	}
	_ = conn.Close()
}
