// SPDX-License-Identifier: MPL-2.0

package credential_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/pluginidentityutil"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

const tokenFile = "AZURE_FEDERATED_TOKEN_FILE"

func update(c credential.Credential, fields map[string]any) (credential.Credential, error) {
	schema := field.Schema(new(credential.Credential).Fields())
	cleaned, _, err := field.Clean(schema, fields)
	if err != nil {
		return c, err
	}
	return c.Update(&framework.FieldData{Raw: cleaned, Schema: schema})
}

func pem(t *testing.T) string {
	t.Helper()
	made, err := graph.NewCertificate("test", time.Hour, time.Now())
	require.NoError(t, err)
	return made.PEM
}

func TestUpdate(t *testing.T) {
	none, secret, bundle := credential.Credential{}, credential.Credential{Type: credential.ClientSecret, Secret: "s"}, pem(t)
	tokens := credential.Credential{Type: credential.IdentityToken, Audience: "api://AzureADTokenExchange", TokenTTL: time.Hour}
	own := credential.Credential{Type: credential.IdentityToken, Audience: "a", TokenTTL: 2 * time.Minute}
	for name, c := range map[string]struct {
		before credential.Credential
		fields map[string]any
		after  credential.Credential
	}{
		"a secret":                   {none, map[string]any{"client_secret": "s\n"}, secret},
		"kept":                       {secret, map[string]any{}, secret},
		"null belongs to all":        {secret, map[string]any{"client_certificate": nil}, secret},
		"a certificate":              {secret, map[string]any{"client_certificate": bundle}, credential.Credential{Type: credential.ClientCertificate, Certificate: strings.TrimSpace(bundle)}},
		"tokens":                     {secret, map[string]any{"credential_type": "vault_identity_token"}, tokens},
		"tokens of another audience": {tokens, map[string]any{"identity_token_audience": "a", "identity_token_ttl": 120}, own},
		"the default again":          {own, map[string]any{"identity_token_audience": "", "identity_token_ttl": "1h"}, tokens},
		"managed identity":           {tokens, map[string]any{"credential_type": "managed_identity"}, credential.Credential{Type: credential.ManagedIdentity}},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := update(c.before, c.fields)
			require.NoError(t, err)
			require.Equal(t, c.after, after)
		})
	}
	for name, c := range map[string]struct {
		fields map[string]any
		names  string
	}{
		"nothing":           {map[string]any{}, "credential_type"},
		"unknown":           {map[string]any{"credential_type": "password"}, "credential_type"},
		"two":               {map[string]any{"client_secret": "s", "client_certificate": "c"}, "client_certificate"},
		"another kind's":    {map[string]any{"client_secret": "s", "identity_token_audience": "a"}, "identity_token_audience"},
		"empty":             {map[string]any{"credential_type": "client_secret", "client_secret": " "}, "client_secret"},
		"a secret's ID":     {map[string]any{"client_secret": "11111111-2222-3333-4444-555555555555"}, "client_secret"},
		"in braces":         {map[string]any{"client_secret": "{11111111-2222-3333-4444-555555555555}"}, "client_secret"},
		"without hyphens":   {map[string]any{"client_secret": "11111111222233334444555555555555"}, "client_secret"},
		"no secret":         {map[string]any{"credential_type": "client_secret"}, "client_secret"},
		"no certificate":    {map[string]any{"credential_type": "client_certificate"}, "client_certificate"},
		"no PEM":            {map[string]any{"client_certificate": "no PEM"}, "client_certificate"},
		"too short a token": {map[string]any{"credential_type": "vault_identity_token", "identity_token_ttl": 1}, "identity_token_ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := update(none, c.fields)
			refused, ok := errors.AsType[*field.Error](err)
			require.True(t, ok, err)
			require.Equal(t, c.names, refused.Field)
		})
	}
}

func TestWhatIsReadBack(t *testing.T) {
	read := field.Read((&credential.Credential{Type: credential.IdentityToken, Audience: "a", TokenTTL: time.Minute}).Fields())
	require.Equal(t, map[string]any{"credential_type": "vault_identity_token", "identity_token_audience": "a", "identity_token_ttl": int64(60)}, read)
	read = field.Read((&credential.Credential{Type: credential.ClientSecret, Secret: "s"}).Fields())
	require.NotContains(t, read, "client_secret")
}

func TestSuppliedBy(t *testing.T) {
	for kind, name := range map[string]string{
		credential.ClientSecret: "client_secret", credential.ClientCertificate: "client_certificate", credential.ManagedIdentity: "credential_type",
	} {
		c := credential.Credential{Type: kind}
		require.True(t, c.SuppliedBy(&framework.FieldData{Raw: map[string]any{name: "x"}}))
		require.False(t, c.SuppliedBy(&framework.FieldData{Raw: map[string]any{"tenant_id": "x"}}))
		require.Equal(t, kind == credential.ManagedIdentity, c.Ambient())
	}
}

// system issues tokens, or does not.
type system struct {
	logical.SystemView
	token string
	err   error
}

func (s system) GenerateIdentityToken(context.Context, *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
	return &pluginutil.IdentityTokenResponse{Token: pluginutil.IdentityToken(s.token)}, s.err
}

func TestForGraph(t *testing.T) {
	forGraph := func(c credential.Credential, s system) graph.Credential {
		return c.ForGraph(func() logical.SystemView { return s })
	}
	require.Equal(t, graph.ClientSecret("s"), forGraph(credential.Credential{Type: credential.ClientSecret, Secret: "s"}, system{}))
	require.Equal(t, graph.ClientCertificate{PEM: "c"}, forGraph(credential.Credential{Type: credential.ClientCertificate, Certificate: "c"}, system{}))
	require.Equal(t, graph.ManagedIdentity{}, forGraph(credential.Credential{Type: credential.ManagedIdentity}, system{}))

	tokens := credential.Credential{Type: credential.IdentityToken}
	for problem, s := range map[string]system{
		"":                               {token: "t"},
		"issues no plugin identity":      {},
		"that takes Vault Enterprise":    {err: pluginidentityutil.ErrPluginWorkloadIdentityUnsupported},
		"not issued an identity token":   {err: context.DeadlineExceeded},
		"could not issue an identity to": {err: errors.New("broken")},
	} {
		token, err := forGraph(tokens, s).(graph.ClientAssertion)(t.Context())
		if problem == "" {
			require.NoError(t, err)
			require.Equal(t, "t", token)
			continue
		}
		require.ErrorContains(t, err, problem)
	}
}

func TestWorkloadIdentity(t *testing.T) {
	c := credential.Credential{Type: credential.WorkloadIdentity}
	assert := c.ForGraph(nil).(graph.ClientAssertion)
	t.Setenv(tokenFile, "")
	require.ErrorContains(t, c.Check(), tokenFile)
	_, err := assert(t.Context())
	require.ErrorContains(t, err, "does not set")
	name := filepath.Join(t.TempDir(), "token")
	t.Setenv(tokenFile, name)
	require.NoError(t, c.Check(), "the file may come later")
	_, err = assert(t.Context())
	require.ErrorContains(t, err, "cannot be read")
	for text, want := range map[string]string{"": "", "t\n": "t", "\uFEFFt\r\n": "t"} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		require.NoError(t, c.Check())
		token, err := assert(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, token)
	}
	for text, kind := range map[string]string{
		"\xFF\xFEh\x00u\x00n\x00t\x00e\x00r\x002\x00": "is text in UTF-16",
		"hunter2\u200B":                         "an invisible character",
		"hunter2\x00":                           "a NUL character",
		"hunter2\xE4":                           "not UTF-8",
		"\u201Chunter2\u201D":                   "not ASCII",
		"hunter2\nhunter2":                      "a line break",
		"hunter2\thunter2":                      "a control character",
		"hunter2 hunter2":                       "a space",
		"hunter2" + strings.Repeat("2", 64<<10): "larger than a token can be",
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		_, err := assert(t.Context())
		said, ok := errors.AsType[*graph.Error](err)
		require.True(t, ok, "the reason is for the operator")
		require.Contains(t, said.Reason, tokenFile)
		require.Contains(t, said.Reason, kind)
		refused, ok := errors.AsType[*field.Error](c.Check())
		require.True(t, ok, "whether the write verifies or not")
		require.Equal(t, "credential_type", refused.Field)
		require.Equal(t, said.Reason, refused.Problem)
		require.NotContains(t, refused.Error(), "hunter2")
	}
}
