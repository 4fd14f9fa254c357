// SPDX-License-Identifier: MPL-2.0

package check

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// engine is the secrets engine, mounted at mdi/ without a Vault.
type engine struct {
	t       *testing.T
	backend logical.Backend
	storage logical.Storage
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	storage := &logical.InmemStorage{}
	system := logical.TestSystemView()
	system.PluginEnvironment = &logical.PluginEnvironment{} // its OpenAPI document names Vault's version
	b, err := backend.Factory(t.Context(), &logical.BackendConfig{
		Logger:      hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
		System:      system,
		StorageView: storage,
	})
	require.NoError(t, err)
	t.Cleanup(func() { b.Cleanup(context.Background()) })
	return &engine{t: t, backend: b, storage: storage}
}

// configured returns an engine that owns the key of a simulated tenant.
func configured(t *testing.T) *engine {
	t.Helper()
	sim := graphtest.Start(t)
	e := newEngine(t)
	e.write("config", map[string]any{
		"tenant_id":      sim.App().TenantID,
		"client_id":      sim.App().ClientID,
		"client_secret":  sim.App().ClientSecret,
		"graph_endpoint": sim.URL(),
		"authority_host": sim.URL(),
		"ca_certificate": sim.CACertificate(),
	})
	return e
}

// read returns the data of a path as a client of Vault decodes it.
func (e *engine) read(path string) map[string]any {
	e.t.Helper()
	resp := e.request(logical.ReadOperation, path, nil)
	require.NotNil(e.t, resp, "there is nothing at mdi/%s", path)
	text, err := json.Marshal(resp.Data)
	require.NoError(e.t, err)
	return decode(e.t, text)
}

// write creates or updates a path.
func (e *engine) write(path string, data map[string]any) {
	e.t.Helper()
	resp := e.request(logical.CreateOperation, path, data)
	if resp == nil {
		return
	}
	for _, warning := range resp.Warnings {
		require.True(e.t, strings.HasPrefix(warning, "The next automatic rotations"), "an unknown field is a warning: %s", warning)
	}
}

func (e *engine) request(op logical.Operation, path string, data map[string]any) *logical.Response {
	e.t.Helper()
	resp, err := e.backend.HandleRequest(e.t.Context(), &logical.Request{
		Operation: op, Path: path, Data: data, Storage: e.storage, MountPoint: "mdi/",
	})
	require.NoError(e.t, err, "%s mdi/%s", op, path)
	require.False(e.t, resp.IsError(), "%s mdi/%s: %v", op, path, resp)
	return resp
}

// openAPI returns the document that Vault would serve for the mount.
func (e *engine) openAPI() *framework.OASDocument {
	e.t.Helper()
	resp := e.request(logical.HelpOperation, "", nil)
	doc, ok := resp.Data["openapi"].(*framework.OASDocument)
	require.True(e.t, ok, "the help of the mount is not an OpenAPI document")
	return doc
}

// decode decodes an object without changing its numbers.
func decode(t *testing.T, text []byte) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	require.NoError(t, decoder.Decode(&object))
	return object
}
