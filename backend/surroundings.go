// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/pluginidentityutil"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
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

	errIdentityTokenLate = &graph.AssertionError{Kind: graph.Timeout, Reason: "Vault has not issued an identity token for the plugin in time"}

	errIdentityToken = &graph.AssertionError{Kind: graph.Unavailable, Reason: "Vault could not issue an identity token for the plugin: its log says why"}
)

const (
	// maxTokenFile bounds what is read of a token file.
	maxTokenFile = 64 << 10
	// identityTokenBudget bounds how long Vault may take for a token: it asks nobody
	// else, and what remains of a sign-in has to do for Entra.
	identityTokenBudget = 5 * time.Second
)

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

// identityToken has Vault issue a token for this plugin. Why it has not is told by the
// log alone, and not at all where the server never does.
func identityToken(ctx context.Context, system logical.SystemView, audience string, ttl time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, identityTokenBudget)
	defer cancel()
	resp, err := system.GenerateIdentityToken(ctx, &pluginutil.IdentityTokenRequest{Audience: audience, TTL: ttl})
	switch {
	case err == nil && resp != nil && resp.Token.Token() != "":
		return resp.Token.Token(), nil
	case err == nil || issuesNone(err):
		return "", errNoIdentityTokens
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded:
		return "", errIdentityTokenLate
	default:
		graph.LoggerOf(ctx, hclog.NewNullLogger()).Warn("Vault has not issued an identity token for the plugin", logFailure(err)...)
		return "", errIdentityToken
	}
}

// issuesNone tells whether an error says that the server has no identity tokens at all.
// Vault's community edition says so in a text, whose error has lost its type on the way
// to the plugin; OpenBao lacks the call.
func issuesNone(err error) bool {
	return status.Code(err) == codes.Unimplemented ||
		strings.Contains(err.Error(), pluginidentityutil.ErrPluginWorkloadIdentityUnsupported.Error()) ||
		strings.Contains(err.Error(), "not implemented")
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

// checkTokenFile reports that a workload identity lacks its token. An error is a
// *fieldError.
func (c *config) checkTokenFile() error {
	if c.Credential.Type == credentialWorkloadIdentity && os.Getenv(envTokenFile) == "" {
		return &fieldError{field: fieldCredentialType, problem: errNoTokenFile.Error()}
	}
	return nil
}

// checkHosts reports why a credential that is not the writer's own must not be used:
// the configuration would send it to a host of the writer's choice. A certificate
// authority of the writer's choice makes any host one of theirs, Microsoft's included.
// An error is a *fieldError.
func (c *config) checkHosts() error {
	if !c.Credential.ambient() {
		return nil
	}
	allowed := strings.FieldsFunc(strings.ToLower(os.Getenv(envAllowedHosts)), func(r rune) bool { return r == ',' || r == ' ' })
	for _, d := range c.chosenDestinations() {
		u, err := url.Parse(d.root)
		if err != nil || !slices.Contains(allowed, strings.ToLower(u.Host)) {
			return &fieldError{field: d.chosenBy, problem: "cannot be combined with " + fieldCredentialType + " " + c.Credential.Type +
				", unless the plugin's environment allows " + d.called + " in " + envAllowedHosts}
		}
	}
	return nil
}

// destination is where a credential, or what it is exchanged for, is sent.
type destination struct {
	root     string
	called   string // in an error, which must not quote what was written
	chosenBy string // the field
}

// chosenDestinations returns those that the configuration rather than Microsoft has a
// hand in.
func (c *config) chosenDestinations() []destination {
	var chosen []destination
	choose := func(field, own, microsofts string) {
		switch {
		case own != "":
			chosen = append(chosen, destination{root: own, called: "the host", chosenBy: field})
		case c.CACertificate != "":
			chosen = append(chosen, destination{root: microsofts, called: strings.TrimPrefix(microsofts, "https://"), chosenBy: fieldCACertificate})
		}
	}
	choose(fieldGraphEndpoint, c.GraphEndpoint, c.cloud().GraphRoot)
	if c.Credential.Type != credentialManagedIdentity || c.AuthorityHost != "" { // its tokens are Azure's, and not Entra's
		choose(fieldAuthorityHost, c.AuthorityHost, c.cloud().AuthorityHost)
	}
	return chosen
}
