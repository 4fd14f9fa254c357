// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"fmt"
	"maps"
	"net/http"
	"path"

	"github.com/google/uuid"
)

// routes returns the handler of all paths: Entra below the tenant's id, Graph below its
// versions, the sensors, and the control interface.
func (s *Simulator) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/common/discovery/instance", s.call(Instance, discoverInstance))
	mux.Handle("/{tenant}/v2.0/.well-known/openid-configuration", s.call(Discovery, discover))
	mux.Handle("/{tenant}/oauth2/v2.0/token", s.call(Token, issueToken))
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.keySet)

	for _, call := range graphCalls() {
		handler := s.call(call.op, call.work)
		for _, below := range call.paths() {
			mux.Handle("/beta"+below, handler)
			mux.Handle("/v1.0"+below, handler)
		}
	}
	s.applications(mux, "/beta")
	s.applications(mux, "/v1.0")
	mux.Handle("/sensors/register", s.call(Register, register))

	mux.HandleFunc("GET /simulator/{$}", s.controlInfo)
	mux.HandleFunc("GET /simulator/calls", s.controlCalls)
	mux.HandleFunc("GET /simulator/issued", s.controlIssued)
	mux.HandleFunc("POST /simulator/faults", s.controlInject)
	mux.HandleFunc("DELETE /simulator/faults", s.controlClear)
	mux.HandleFunc("POST /simulator/portal-regenerate", s.controlPortal)
	mux.HandleFunc("POST /simulator/tenant", s.controlTenant)
	mux.HandleFunc("POST /simulator/wait", s.controlWait)
	mux.HandleFunc("GET /simulator/credentials", s.controlCredentials)
	mux.HandleFunc("DELETE /simulator/credentials/{id}", s.controlRemove)
	mux.HandleFunc("POST /simulator/assertion", s.controlAssertion)
	mux.HandleFunc("POST /simulator/certificate", s.controlCertificate)
	mux.HandleFunc("/", s.unknown)
	return mux
}

// unknown answers like Graph, whatever the path. It is not counted.
func (s *Simulator) unknown(w http.ResponseWriter, r *http.Request) {
	x := &exchange{sim: s, r: r, requestID: uuid.NewString()}
	a := x.graphError(http.StatusBadRequest, "", fmt.Sprintf("There is no resource for the segment '%s'.", path.Base(r.URL.Path)))
	maps.Copy(w.Header(), a.header)
	reply(w, a.status, a.body)
}
