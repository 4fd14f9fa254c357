// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/pluginidentityutil"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// envTokenFile is where Azure's workload identity webhook has put the token of the pod's
// service account. A configuration can never name another file.
const envTokenFile = "AZURE_FEDERATED_TOKEN_FILE"

var (
	errNoTokenFile = &graph.Error{Kind: graph.Refused, Reason: "the environment of the plugin does not set " + envTokenFile}

	errTokenFile = &graph.Error{Kind: graph.Refused, Reason: "the file that " + envTokenFile + " names cannot be read"}

	errNoIdentityTokens = &graph.Error{Kind: graph.Refused, Reason: "this server issues no plugin identity tokens: that takes Vault Enterprise, 1.16 or later"}

	errIdentityTokenLate = &graph.Error{Kind: graph.Timeout, Reason: "Vault has not issued an identity token for the plugin in time"}

	errIdentityToken = &graph.Error{Kind: graph.Unavailable, Reason: "Vault could not issue an identity token for the plugin: its log says why"}
)

// maxTokenFile limits what is read of the token's file, which could be a device, in bytes.
const maxTokenFile = 64 << 10

// identityTokenBudget bounds how long Vault may take for a token. It is a part of the
// time for a sign-in, and the rest has to do for Entra.
const identityTokenBudget = 5 * time.Second

// ForGraph returns the credential as package graph takes it.
func (c Credential) ForGraph(system func() logical.SystemView) graph.Credential {
	switch c.Type {
	case ClientCertificate:
		return graph.ClientCertificate{PEM: c.Certificate}
	case IdentityToken:
		return graph.ClientAssertion(func(ctx context.Context) (string, error) {
			return identityToken(ctx, system(), c.Audience, c.TokenTTL)
		})
	case WorkloadIdentity:
		return graph.ClientAssertion(workloadToken)
	case ManagedIdentity:
		return graph.ManagedIdentity{}
	default:
		return graph.ClientSecret(c.Secret)
	}
}

// identityToken asks Vault for a token for this plugin. The reason for a failure goes to
// the log alone.
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
		hclog.FromContext(ctx).Warn("Vault has not issued an identity token for the plugin", graph.LogArgs(err)...)
		return "", errIdentityToken
	}
}

// issuesNone reports whether an error says that the server has no identity tokens at all.
// Vault's community edition says so in a text, because errors lose their type on the way
// to a plugin; OpenBao lacks the call.
func issuesNone(err error) bool {
	return status.Code(err) == codes.Unimplemented ||
		strings.Contains(err.Error(), pluginidentityutil.ErrPluginWorkloadIdentityUnsupported.Error()) ||
		strings.Contains(err.Error(), "not implemented")
}

// workloadToken reads the token of the workload identity, each time anew, because it is
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
	text, err := io.ReadAll(io.LimitReader(file, maxTokenFile))
	if err != nil {
		return "", errTokenFile
	}
	token, err := field.Line(string(text))
	if len(text) == maxTokenFile {
		err = errors.New("is larger than a token can be")
	}
	if err == nil && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		err = errors.New("contains a space or a character that is not ASCII: it must be one token")
	}
	if err != nil {
		return "", &graph.Error{Kind: graph.Refused, Reason: "the file that " + envTokenFile + " names " + err.Error()}
	}
	return token, nil
}

// Check returns an error if the plugin's environment lacks what the credential needs, or has
// something else instead. The token's file may come later. The error is a [*field.Error].
func (c Credential) Check() error {
	if c.Type == WorkloadIdentity {
		_, err := workloadToken(context.Background())
		if failure, ok := errors.AsType[*graph.Error](err); ok && !errors.Is(err, errTokenFile) {
			return &field.Error{Field: FieldType, Problem: failure.Reason}
		}
	}
	return nil
}
