// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

func TestCredentialsNeverShow(t *testing.T) {
	const value = "hunter2~Xyz"
	for name, credential := range map[string]graph.Credential{
		"secret":      graph.ClientSecret(value),
		"certificate": graph.ClientCertificate{PEM: value},
		"assertion":   graph.ClientAssertion(func(context.Context) (string, error) { return value, nil }),
	} {
		t.Run(name, func(t *testing.T) { requireNeverShows(t, credential, value) })
	}
}

func requireNeverShows(t *testing.T, secret graph.Credential, value string) {
	t.Helper()
	holders := []any{secret, &secret, graph.Config{Credential: secret}, []graph.Credential{secret}, map[string]graph.Credential{"k": secret}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%50s"} {
		for _, holder := range holders {
			text := fmt.Sprintf(verb, holder)
			require.NotContains(t, text, value, verb)
			require.NotContains(t, text, fmt.Sprintf("%x", value), verb)
			require.NotContains(t, text, fmt.Sprintf("%X", value), verb)
		}
	}
	require.Equal(t, "[redacted]", secret.(fmt.Stringer).String())
	require.Equal(t, "[redacted]", fmt.Sprint(secret))

	encoded, err := json.Marshal(holders[2:])
	require.NoError(t, err)
	require.NotContains(t, string(encoded), value)

	for _, asJSON := range []bool{false, true} {
		var log bytes.Buffer
		logger := hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: asJSON})
		logger.Error("oops", "secret", secret, "all", holders)
		require.Contains(t, log.String(), "oops")
		require.NotContains(t, log.String(), value)
	}
}

func TestClientDoesNotShowItsSecret(t *testing.T) {
	const value = "hunter2~Xyz"
	cert, key := graph.Ours()
	for shown, credential := range map[string]graph.Credential{value: graph.ClientSecret(value), "PRIVATE KEY": graph.ClientCertificate{PEM: cert + key}} {
		client, err := graph.New(graph.ValidConfig(func(c *graph.Config) { c.Credential = credential }))
		require.NoError(t, err)
		for _, verb := range []string{"%v", "%+v", "%#v"} {
			require.NotContains(t, fmt.Sprintf(verb, client), shown)
			require.NotContains(t, fmt.Sprintf(verb, reflect.ValueOf(client).Elem()), shown)
		}
	}
}

func TestANewSecretDoesNotShow(t *testing.T) {
	const value = "hunter2~Xyz"
	added := graph.PasswordCredential{KeyID: "id", Secret: value}
	encoded, err := json.Marshal(added) //nolint:gosec // the test is that it does not show
	require.NoError(t, err)
	for _, text := range []string{string(encoded), fmt.Sprintf("%v %+v %#v", added, added, &added)} {
		require.Contains(t, text, "id")
		require.NotContains(t, text, value)
	}
}
