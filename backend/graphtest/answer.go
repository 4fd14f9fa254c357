// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
)

// answer is a service's response: a status, headers, and a JSON object or no body.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

// page is a proxy's answer instead of the service's.
const page = "<!DOCTYPE html>\n<html><head><title>Proxy</title></head>" +
	"<body><h1>The proxy could not handle the request</h1></body></html>\n"

// write sends an answer, spoiled as the fault says, and counts it.
func (x *exchange) write(a answer) {
	if x.r.Context().Err() != nil {
		x.drop(false)
		return
	}
	header := x.w.Header()
	if x.fault.Body != BodyHTML {
		maps.Copy(header, a.header)
	}
	var payload []byte
	if a.body != nil || x.fault.Body != BodyProper {
		var contentType string
		payload, contentType = x.payload(a)
		header.Set("Content-Type", contentType)
		header.Set("Content-Length", strconv.Itoa(len(payload)))
	}
	if a.status == http.StatusNoContent && len(payload) > 0 {
		a.status = http.StatusOK // the fault gives a body to an answer without one
	}
	x.w.WriteHeader(a.status)

	if x.fault.Body == BodyTruncated {
		x.writeHalf(payload)
		return
	}
	if _, err := x.w.Write(payload); err != nil {
		return
	}
	// Counted before the last byte leaves: see Calls.Answered.
	x.sim.countAnswer(x.op, answered)
	if err := http.NewResponseController(x.w).Flush(); err != nil {
		x.sim.countAnswer(x.op, unanswered)
	}
}

// writeHalf breaks the connection in the middle of the body.
func (x *exchange) writeHalf(payload []byte) {
	if _, err := x.w.Write(payload[:len(payload)/2]); err == nil {
		_ = http.NewResponseController(x.w).Flush() // the connection is about to break anyway
	}
	panic(http.ErrAbortHandler)
}

func (s *Simulator) countAnswer(op Operation, change func(*Calls)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(op, change)
}

// payload returns the body as bytes, and its content type.
func (x *exchange) payload(a answer) (payload []byte, contentType string) {
	if x.fault.Body == BodyDisagreeing {
		x.disagree(a)
	}
	const contentTypeJSON = "application/json; charset=utf-8"
	payload, err := json.Marshal(a.body)
	if err != nil {
		panic(err) // strings, numbers and maps of them can be marshalled
	}
	switch x.fault.Body {
	case BodyHTML:
		return []byte(page), "text/html"
	case BodyEmpty:
		return nil, contentTypeJSON
	case BodyWrongContentType:
		return payload, "text/plain"
	case BodyMalformed:
		return payload[:len(payload)-1], contentTypeJSON
	default:
		return payload, contentTypeJSON
	}
}

// disagree adds a second key to a good answer. The key counts as issued, because it must
// not appear in a log either.
func (x *exchange) disagree(a answer) {
	if a.status != http.StatusOK {
		return
	}
	key := newDeploymentKey()
	contradict(a.body, key)
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	x.sim.issued.add(key)
}
