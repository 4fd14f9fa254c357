// SPDX-License-Identifier: MPL-2.0

package check

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	externalsecrets "github.com/external-secrets/external-secrets/apis/externalsecrets/v1"
	generators "github.com/external-secrets/external-secrets/apis/generators/v1alpha1"
	generator "github.com/external-secrets/external-secrets/pkg/generator/vault"
	template "github.com/external-secrets/external-secrets/pkg/template/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	manifest  = "../access-key.yaml"
	namespace = "sensors" // as docs/integrations.md has it
)

// TestOperatorReadsTheKey has the operator's generator take the key twice, as it does for two
// refreshes, and its templates write the Secret's file. Only Vault's address is changed in the
// manifest.
func TestOperatorReadsTheKey(t *testing.T) {
	documents := strings.Split(readFile(t, manifest), "\n---\n")
	require.Len(t, documents, 2)
	var secret externalsecrets.ExternalSecret
	require.NoError(t, yaml.UnmarshalStrict([]byte(documents[1]), &secret))
	var spec generators.VaultDynamicSecret
	require.NoError(t, yaml.UnmarshalStrict([]byte(documents[0]), &spec))

	vault, tenant := mounted(t)
	account := spec.Spec.Provider.Auth.Kubernetes.ServiceAccountRef.Name
	cluster := startCluster(t, account)
	cluster.trustedBy(t, vault, *spec.Spec.Provider.Auth.Kubernetes)
	spec.Spec.Provider.Server = vault.Address()
	text, err := json.Marshal(spec)
	require.NoError(t, err)

	var previous string
	for refresh := 1; refresh <= 2; refresh++ {
		data, _, err := new(generator.Generator).Generate(t.Context(), &extensions.JSON{Raw: text}, fake.NewFakeClient(), namespace)
		require.NoError(t, err)
		key := fileOf(t, secret, data)
		require.True(t, tenant.CanRegister(key))
		require.Contains(t, []string{"", key}, previous, "a refresh replaces no key that is shared")
		previous = key
		require.EqualValues(t, refresh, cluster.tokens.Load(), "it signs in for each refresh")
		require.Equal(t, 1, tenant.Calls(graphtest.Regenerate).Performed)
		status, err := vault.Logical().ReadWithContext(t.Context(), "mdi/status")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(refresh), fmt.Sprint(status.Data["live_leases"]), "each refresh takes a lease, and revokes none")
	}
	role, err := vault.Logical().ReadWithContext(t.Context(), "mdi/roles/sensor-hosts")
	require.NoError(t, err)
	ttl, err := role.Data["ttl"].(json.Number).Int64()
	require.NoError(t, err)
	require.Less(t, secret.Spec.RefreshInterval.Duration, time.Duration(ttl)*time.Second)

	_, err = vault.Logical().WriteWithContext(t.Context(), "sys/leases/revoke-prefix/mdi/key", map[string]any{"sync": true})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !tenant.CanRegister(previous) }, 10*time.Second, 100*time.Millisecond, "with its last lease the key dies")
}

// fileOf returns the file that the operator's templates make of a generator's data.
func fileOf(t *testing.T, secret externalsecrets.ExternalSecret, data map[string][]byte) string {
	t.Helper()
	templates := map[string][]byte{}
	for name, text := range secret.Spec.Target.Template.Data {
		templates[name] = []byte(text)
	}
	var made core.Secret
	require.NoError(t, template.Execute(templates, data, externalsecrets.TemplateScopeValues, externalsecrets.TemplateTargetData, &made))
	require.Len(t, made.Data, 1, "nothing but the key is in the Secret")
	return string(made.Data["access-key.txt"])
}

// mounted returns a server whose engine owns the key of a simulated tenant, with the role and
// the policy of the example.
func mounted(t *testing.T) (*testbed.Vault, *testbed.Tenant) {
	t.Helper()
	root, err := filepath.Abs("../../../..")
	require.NoError(t, err)
	_, err = testbed.Output(t.Context(), root, nil, "make", "--no-print-directory", "build")
	require.NoError(t, err)
	binary, err := testbed.FindVault(t.Context(), root)
	require.NoError(t, err)
	tenant, err := testbed.StartTenant(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tenant.Stop()) })
	vault, err := testbed.StartVault(t.Context(), testbed.Server{Binary: binary, Storage: "inmem", Level: "info"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Stop()) })
	require.NoError(t, vault.Install(t.Context(), filepath.Join(root, "dist/plugins", testbed.PluginName), ""))
	require.NoError(t, vault.Mount(t.Context(), testbed.PluginName, "mdi", tenant.Config()))
	write(t, vault, "mdi/roles/sensor-hosts", map[string]any{"ttl": "30m"})
	require.NoError(t, vault.Sys().PutPolicy("sensor-host", readFile(t, filepath.Join(root, "scripts/policies/sensor-host.hcl"))))
	return vault, tenant
}

// cluster is as much of a Kubernetes cluster as the operator asks for: it issues the tokens of
// one service account.
type cluster struct {
	key     *ecdsa.PrivateKey
	subject string
	tokens  atomic.Int64 // issued
}

const audience = "https://kubernetes.default.svc.cluster.local" // what a cluster uses if asked for none

// startCluster runs a cluster, to which the operator is led as kubectl is.
func startCluster(t *testing.T, account string) *cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &cluster{key: key, subject: "system:serviceaccount:" + namespace + ":" + account}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", c.issue)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": "` + server.URL + `"}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]}`
	require.NoError(t, os.WriteFile(kubeconfig, []byte(text), 0o600))
	t.Setenv("KUBECONFIG", kubeconfig)
	return c
}

func (c *cluster) issue(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sub": c.subject, "aud": []string{audience}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}).SignedString(c.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c.tokens.Add(1)
	answer := authentication.TokenRequest{Status: authentication.TokenRequestStatus{Token: token}}
	answer.APIVersion, answer.Kind = "authentication.k8s.io/v1", "TokenRequest"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer)
}

// trustedBy has the server accept the cluster's tokens for the role of the manifest. The method
// is jwt, since the small server that the project builds lacks kubernetes, at the other one's
// path: the operator's request is the same for both.
func (c *cluster) trustedBy(t *testing.T, vault *testbed.Vault, auth externalsecrets.VaultKubernetesAuth) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(c.key.Public())
	require.NoError(t, err)
	var public bytes.Buffer
	require.NoError(t, pem.Encode(&public, &pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	write(t, vault, "sys/auth/"+auth.Path, map[string]any{"type": "jwt"})
	write(t, vault, "auth/"+auth.Path+"/config", map[string]any{"jwt_validation_pubkeys": public.String()})
	write(t, vault, "auth/"+auth.Path+"/role/"+auth.Role, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": c.subject, "bound_audiences": audience,
		"token_policies": "sensor-host", "token_ttl": "1h",
	})
}

func write(t *testing.T, vault *testbed.Vault, path string, data map[string]any) {
	t.Helper()
	_, err := vault.Logical().WriteWithContext(t.Context(), path, data)
	require.NoError(t, err)
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // of this repository
	require.NoError(t, err)
	return string(text)
}
