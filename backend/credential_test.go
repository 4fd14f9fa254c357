// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// certificate returns a bundle that the simulated app is registered with.
func (r *rig) certificate() string {
	r.t.Helper()
	bundle, err := r.sim.NewCertificate(graphtest.CertificateRequest{})
	require.NoError(r.t, err)
	return bundle
}

func (r *rig) assertion(request graphtest.AssertionRequest) string {
	r.t.Helper()
	token, err := r.sim.Assertion(request)
	require.NoError(r.t, err)
	return token
}

// allowed lets credentials of the surroundings be sent to the simulator.
func (r *rig) allowed() {
	r.t.Setenv("MDI_ALLOWED_HOSTS", "graph.example.com,"+r.sim.URL()[len("https://"):])
}

// managedIdentity sets the variables that App Service does for the simulated one.
func (r *rig) managedIdentity() {
	r.t.Helper()
	r.t.Setenv("IDENTITY_ENDPOINT", r.sim.StartMetadata(r.t)+"/msi/token")
	r.t.Setenv("IDENTITY_HEADER", r.sim.IdentityHeader())
}

// managedConfig returns the fields of a configuration with the machine's own identity.
func (r *rig) managedConfig() map[string]any {
	return r.config(map[string]any{
		credential.FieldSecret: nil, config.FieldClientID: nil, config.FieldAuthorityHost: nil, credential.FieldType: credential.ManagedIdentity,
	})
}

func TestSignInWithACertificate(t *testing.T) {
	r := newRig(t)
	r.write(configPath, r.config(map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: r.certificate()}))
	require.True(t, r.works(r.key()))
	data := r.read(configPath).Data
	require.Equal(t, credential.ClientCertificate, data[credential.FieldType])
	require.NotContains(t, data, credential.FieldCertificate)

	unregistered, err := r.sim.NewCertificate(graphtest.CertificateRequest{Unregistered: true})
	require.NoError(t, err)
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{credential.FieldCertificate: unregistered}), "AADSTS700027")
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{credential.FieldCertificate: "no PEM"}), credential.FieldCertificate)
	require.True(t, r.works(r.key()))
}

// What does not belong to the certificate's chain is left out, and the writer hears of it
// once.
func TestCertificatesThatAreNotSentAreAWarning(t *testing.T) {
	r := newRig(t)
	bundle := r.certificate()
	fields := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldCertificate: bundle})
	require.Empty(t, r.write(configPath, fields).Warnings)
	fields[credential.FieldCertificate] = r.sim.CACertificate() + bundle
	warnings := r.write(configPath, fields).Warnings
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], credential.FieldCertificate)
	require.Contains(t, warnings[0], "CN=mdi-simulator authority")
	require.Empty(t, r.write(configPath, map[string]any{config.FieldTTL: 60}).Warnings)
	require.True(t, r.works(r.key()))

	// A refusal says so too: the chain that Entra does not accept may lack one of them.
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Token, Status: 400, Code: "7000213"})
	refused := r.fails(400, logical.UpdateOperation, configPath, map[string]any{credential.FieldCertificate: r.sim.CACertificate() + bundle})
	require.Regexp(t, `^the chain of the certificate .* does not get these certificates.*CN=mdi-simulator authority.*verify_connection=false$`, refused)
}

// Earlier versions skipped a damaged block when they stored it. The mount has to work on
// after an upgrade; the next write of the text is refused.
func TestDamagedPEMThatIsStoredStillWorks(t *testing.T) {
	r := rotatable(t, credential.ClientCertificate)
	damaged := strings.Replace(r.sim.CACertificate(), "\nMI", "\nMI!", 1)
	cfg, err := r.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	cfg.CACertificate = damaged + cfg.CACertificate
	cfg.Credential.Certificate = damaged + cfg.Credential.Certificate
	putConfig(t, r.storage, cfg)
	r.restart()
	require.True(t, r.works(r.key()))
	r.write(configPath, map[string]any{config.FieldTTL: 60})
	for field, value := range map[string]any{config.FieldCACertificate: cfg.CACertificate, credential.FieldCertificate: cfg.Credential.Certificate} {
		require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, map[string]any{field: value}), field+": PEM block 1 is damaged")
	}
}

// A certificate tells when it ends, whoever has made it, and is replaced before that.
func TestConfiguredCertificateIsReplacedBeforeItEnds(t *testing.T) {
	r := rotatable(t, credential.ClientSecret)
	r.write(configPath, map[string]any{credential.FieldCertificate: r.certificate(), config.FieldRootRotationPeriod: "8760h"})
	ends := r.stored().Root.EndsAt
	require.True(t, ends.After(r.clock.now()))
	require.Equal(t, timestamp(ends), r.status()[fieldRootExpiresAt])

	half := ends.Sub(r.clock.now()) / 2
	before := r.credentials()
	r.clock.advance(half - time.Minute)
	r.tick()
	require.Equal(t, before, r.credentials())
	r.clock.advance(2 * time.Minute)
	r.tick()
	require.Equal(t, before+1, r.credentials())
	require.NotEqual(t, ends, r.stored().Root.EndsAt)
	r.write(configPath, map[string]any{credential.FieldSecret: r.sim.App().ClientSecret})
	require.NotEqual(t, timestamp(ends), r.status()[fieldRootExpiresAt], "a secret does not tell, but its registration does")
}

// Records of earlier versions lack the end of a configured certificate.
func TestEndOfACertificateStoredWithoutIt(t *testing.T) {
	r := rotatable(t, credential.ClientCertificate)
	want := r.status()[fieldRootExpiresAt]
	require.NotEmpty(t, want)
	cfg, err := r.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	cfg.Root.EndsAt = time.Time{}
	putConfig(t, r.storage, cfg)
	r.restart()
	require.Equal(t, want, r.status()[fieldRootExpiresAt])
}

func TestSignInWithAWorkloadIdentity(t *testing.T) {
	r := newRig(t)
	r.allowed()
	ambient := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldType: credential.WorkloadIdentity})
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, ambient), "AZURE_FEDERATED_TOKEN_FILE")

	file := filepath.Join(t.TempDir(), "token")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	text := r.fails(400, logical.UpdateOperation, configPath, ambient)
	require.Contains(t, text, "cannot be read")
	require.NotContains(t, text, "proxy", "nothing has been sent anywhere")
	require.NoError(t, os.WriteFile(file, []byte(r.assertion(graphtest.AssertionRequest{})+"\n"), 0o600))
	r.write(configPath, ambient)
	require.True(t, r.works(r.key()))

	require.NoError(t, os.WriteFile(file, []byte(r.assertion(graphtest.AssertionRequest{Forged: true})), 0o600))
	r.restart()
	require.Contains(t, r.fails(400, logical.ReadOperation, keyPath, nil), "AADSTS")
}

func TestSignInWithAManagedIdentity(t *testing.T) {
	r := newRig(t)
	r.allowed()
	r.managedIdentity()
	r.write(configPath, r.managedConfig())
	require.True(t, r.works(r.key()))

	other := "11111111-2222-3333-4444-555555555555"
	text := r.fails(400, logical.UpdateOperation, configPath, map[string]any{config.FieldClientID: other, credential.FieldType: credential.ManagedIdentity})
	require.Contains(t, text, "nothing has been stored")
	r.sim.Update(graphtest.WithUserIdentities(other))
	r.write(configPath, map[string]any{config.FieldClientID: other, credential.FieldType: credential.ManagedIdentity})
	require.True(t, r.works(r.key()))
}

// issuer is a system view of a server that issues plugin identity tokens, or refuses.
type issuer struct {
	logical.SystemView
	issue func(*pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error)
}

func (i issuer) GenerateIdentityToken(_ context.Context, req *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
	return i.issue(req)
}

// issuing lets the server issue identity tokens.
func (r *rig) issuing(issue func(*pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error)) {
	r.t.Helper()
	require.NoError(r.t, r.engine.Setup(r.t.Context(), &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: r.log}), System: issuer{r.system, issue}, StorageView: r.storage,
	}))
}

func TestSignInWithVaultsIdentityToken(t *testing.T) {
	r := newRig(t)
	r.allowed()
	fields := r.config(map[string]any{credential.FieldSecret: nil, credential.FieldType: credential.IdentityToken, credential.FieldTokenTTL: "10m"})
	require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, fields), "issues no plugin identity tokens")

	r.issuing(func(req *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
		require.Equal(t, "api://AzureADTokenExchange", req.Audience)
		require.Equal(t, 10*time.Minute, req.TTL)
		return &pluginutil.IdentityTokenResponse{Token: pluginutil.IdentityToken(r.assertion(graphtest.AssertionRequest{}))}, nil
	})
	r.write(configPath, fields)
	require.True(t, r.works(r.key()))
	data := r.read(configPath).Data
	require.Equal(t, "api://AzureADTokenExchange", data[credential.FieldAudience])
	require.Equal(t, int64(600), data[credential.FieldTokenTTL])
}

func TestSwitchingTheKindLeavesNothingOfTheOld(t *testing.T) {
	r := configured(t)
	r.allowed()
	r.managedIdentity()
	secret := r.sim.App().ClientSecret
	stored := func() credential.Credential {
		cfg, err := r.engine.configs.Stored(t.Context())
		require.NoError(t, err)
		return cfg.Credential
	}
	certificate := r.certificate()
	r.write(configPath, map[string]any{credential.FieldCertificate: certificate})
	require.Equal(t, credential.ClientCertificate, stored().Type)
	require.Empty(t, stored().Secret)
	r.write(configPath, map[string]any{credential.FieldSecret: secret})
	require.Equal(t, credential.Credential{Type: credential.ClientSecret, Secret: secret}, stored())
	r.write(configPath, map[string]any{credential.FieldType: credential.ManagedIdentity, config.FieldClientID: r.sim.App().ClientID, config.FieldVerifyConnection: false})
	require.Equal(t, credential.Credential{Type: credential.ManagedIdentity}, stored())
	r.write(configPath, map[string]any{credential.FieldSecret: secret})
	require.True(t, r.works(r.key()))
}

func TestCredentialsThatContradictThemselves(t *testing.T) {
	r := newRig(t)
	for field, changes := range map[string]map[string]any{
		credential.FieldCertificate:     {credential.FieldCertificate: r.certificate()},
		credential.FieldSecret:          {credential.FieldType: credential.ManagedIdentity},
		credential.FieldAudience:        {credential.FieldAudience: "x"},
		credential.FieldTokenTTL:        {credential.FieldTokenTTL: 60},
		credential.FieldType:            {credential.FieldType: "password"},
		config.FieldRootRotationPeriod:  {config.FieldRootRotationPeriod: 60},
		config.FieldApplicationObjectID: {config.FieldApplicationObjectID: "x"},
	} {
		require.Contains(t, r.fails(400, logical.UpdateOperation, configPath, r.config(changes)), field)
	}
	require.Nil(t, r.read(configPath))
}
