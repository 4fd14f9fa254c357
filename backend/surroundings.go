// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-mdi/backend/graph"
)

// Variables of the plugin's environment.
const (
	// envTokenFile is where Azure's workload identity webhook has put the token of
	// the pod's service account. A configuration can never name another file.
	envTokenFile = "AZURE_FEDERATED_TOKEN_FILE"

	// envAllowedHosts lists, separated by commas, the hosts (with a port, if it is
	// not 443) to which a credential of the surroundings may be sent besides
	// Microsoft's own.
	envAllowedHosts = "MDI_ALLOWED_HOSTS"
)

var (
	errNoTokenFile = &graph.AssertionError{Reason: "the environment of the plugin does not set " + envTokenFile}

	errTokenFile = &graph.AssertionError{Reason: "the file that " + envTokenFile + " names cannot be read"}

	errNoIdentityTokens = &graph.AssertionError{Reason: "this server issues no plugin identity tokens: that takes Vault Enterprise, 1.16 or later"}
)

// maxTokenFile bounds what is read of a token file.
const maxTokenFile = 64 << 10

// forGraph returns the credential as package graph takes it.
func (c credential) forGraph(clientID string, system func() logical.SystemView) graph.Credential {
	switch c.Type {
	case credentialClientCertificate:
		return graph.ClientCertificate{PEM: c.Certificate}
	case credentialIdentityToken:
		return graph.ClientAssertion(func(ctx context.Context) (string, error) {
			return identityToken(ctx, system(), c.Audience, c.TokenTTL)
		})
	case credentialWorkloadIdentity:
		return graph.ClientAssertion(workloadToken)
	case credentialManagedIdentity:
		return graph.ManagedIdentity{ClientID: clientID}
	default:
		return graph.ClientSecret(c.Secret)
	}
}

// identityToken has Vault issue a token for this plugin. Servers that cannot refuse
// in several ways, by text or by the lack of the call, so a refusal of any kind is
// taken for that; what the server says may be of use and carries no token.
func identityToken(ctx context.Context, system logical.SystemView, audience string, ttl time.Duration) (string, error) {
	resp, err := system.GenerateIdentityToken(ctx, &pluginutil.IdentityTokenRequest{Audience: audience, TTL: ttl})
	if err != nil || resp == nil || resp.Token.Token() == "" {
		return "", errNoIdentityTokens
	}
	return resp.Token.Token(), nil
}

// workloadToken reads the token of the workload identity, each time anew, since it is
// replaced before it ends.
func workloadToken(context.Context) (string, error) {
	name := os.Getenv(envTokenFile)
	if name == "" {
		return "", errNoTokenFile
	}
	file, err := os.Open(name) //nolint:gosec // the plugin's own environment names it
	if err != nil {
		return "", errTokenFile
	}
	defer func() { _ = file.Close() }()
	token := make([]byte, maxTokenFile)
	n, err := file.Read(token)
	if err != nil {
		return "", errTokenFile
	}
	return strings.TrimSpace(string(token[:n])), nil
}

// checkSurroundings reports why a credential that is not the writer's own cannot be
// used, or must not be, since the configuration would send it to a host of the
// writer's choice. An error is a *fieldError.
func (c *config) checkSurroundings() error {
	if c.Credential.Type == credentialWorkloadIdentity && os.Getenv(envTokenFile) == "" {
		return &fieldError{field: fieldCredentialType, problem: errNoTokenFile.Error()}
	}
	if !c.Credential.ambient() {
		return nil
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	for _, f := range []struct{ field, root string }{{fieldGraphEndpoint, c.GraphEndpoint}, {fieldAuthorityHost, c.AuthorityHost}} {
		if f.root == "" {
			continue
		}
		u, err := url.Parse(f.root)
		if err != nil || !slices.Contains(allowed, strings.ToLower(u.Host)) {
			return &fieldError{field: f.field, problem: "cannot be combined with " + fieldCredentialType + " " + c.Credential.Type +
				", unless the plugin's environment allows the host in " + envAllowedHosts}
		}
	}
	return nil
}
