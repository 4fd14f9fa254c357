// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// A client signs in and replaces the key, and the simulator says whether the new key works.
// A test would call graphtest.Start(t) instead of starting and stopping a server.
func Example() {
	sim, err := graphtest.New()
	if err != nil {
		panic(err)
	}
	server := httptest.NewTLSServer(sim.Handler())
	defer server.Close()

	app := sim.App()
	signIn := post(server, "/"+app.TenantID+"/oauth2/v2.0/token", "", url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {app.ClientID},
		"client_secret": {app.ClientSecret},
		"scope":         {"https://graph.microsoft.com/.default"},
	})
	answer := post(server, "/v1.0/security/identities/sensors/regenerateDeploymentAccessKey", signIn["access_token"].(string), nil)
	key := answer["deploymentAccessKey"].(string)

	fmt.Println(sim.CanRegister(key), sim.CanRegister(key+"\n"))
	fmt.Println(sim.Calls(graphtest.Regenerate))
	// Output:
	// true false
	// started=1 performed=1 answered=1
}

// post sends a form and returns the JSON of the answer.
func post(server *httptest.Server, path, token string, form url.Values) map[string]any {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := server.Client().Do(req)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		panic(err)
	}
	return answer
}
