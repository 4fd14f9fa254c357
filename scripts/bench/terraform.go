// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
)

// terraformAPI is the part of HCP Terraform's API that the terraform engine needs: it
// issues tokens of users and revokes them, without any state.
type terraformAPI struct {
	*httptest.Server
	issued atomic.Int64
}

func startTerraformAPI() *terraformAPI {
	api := &terraformAPI{}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /api/v2/ping", noContent)
	routes.HandleFunc("POST /api/v2/users/{user}/authentication-tokens", api.issue)
	routes.HandleFunc("DELETE /api/v2/authentication-tokens/{token}", noContent)
	api.Server = httptest.NewServer(routes)
	return api
}

func noContent(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// issue answers with a token, as JSON:API.
func (api *terraformAPI) issue(w http.ResponseWriter, _ *http.Request) {
	n := api.issued.Add(1)
	w.Header().Set("Content-Type", "application/vnd.api+json")
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `{"data": {"type": "authentication-tokens", "id": "at-%[1]d",`+ // fails only if the client has gone
		`"attributes": {"created-at": "2026-01-01T00:00:00.000Z", "description": "", "token": "%088[1]d"}}}`, n)
}
