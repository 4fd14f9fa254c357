// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// credentials returns the words of each line that lists a credential.
func (p *program) credentials(args ...string) [][]string {
	p.t.Helper()
	code, out, problem := p.run("", append([]string{"credentials"}, args...)...)
	require.Zero(p.t, code, problem)
	var all [][]string
	for line := range strings.Lines(out) {
		all = append(all, strings.SplitN(strings.TrimSpace(line), " ", 4))
	}
	return all
}

func TestCredentials(t *testing.T) {
	p := start(t)
	p.expect("changed\n", "tenant", "-foreign-secret", "their own")
	all := p.credentials()
	require.Len(t, all, 2)
	require.Equal(t, "secret", all[1][0])
	require.Regexp(t, `^\S{36}$`, all[1][1])
	require.Equal(t, "2299-12-31T00:00:00Z", all[1][2])
	require.Equal(t, `"their own"`, all[1][3])
	require.Equal(t, all[1:], p.credentials("-remove", all[0][1]))
	code, _, problem := p.run("", "credentials", "-remove", all[0][1])
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, "no such credential")
}

func TestCertificate(t *testing.T) {
	p := start(t)
	file := filepath.Join(t.TempDir(), "app.pem")
	p.expect("written\n", "certificate", "-out", file, "-common-name", "vault", "-validity", "1h")
	_, err := tls.LoadX509KeyPair(file, file)
	require.NoError(t, err)
	stat, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), stat.Mode())
	registered := p.credentials()
	require.Len(t, registered, 2)
	require.Equal(t, "certificate", registered[1][0])

	p.expect("written\n", "certificate", "-out", file, "-unregistered")
	require.Equal(t, registered, p.credentials())
	p.expect("changed\n", "tenant", "-certificate", file)
	require.Len(t, p.credentials(), 3)

	code, _, problem := p.run("", "certificate", "-out", filepath.Join(file, "x"))
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, "app.pem")
}

func TestAssertion(t *testing.T) {
	p := start(t)
	file := filepath.Join(t.TempDir(), "token")
	p.expect("written\n", "assertion", "-out", file, "-subject", "me")
	text, err := os.ReadFile(file) //nolint:gosec // of this test
	require.NoError(t, err)
	claims := jwt.MapClaims{}
	_, _, err = jwt.NewParser().ParseUnverified(string(text), claims)
	require.NoError(t, err)
	require.Equal(t, "me", claims["sub"])
	code, issued, _ := p.run("", "issued")
	require.Zero(t, code)
	require.Contains(t, issued, string(text))

	p.stop()
	require.Equal(t, exitOK, <-p.code)
	code, _, _ = p.run("", "assertion", "-out", file)
	require.Equal(t, exitFailure, code)
}

func TestTenantCredentials(t *testing.T) {
	p := start(t)
	p.expect("changed\n", "tenant", "-propagation", "2,1", "-max-credential-lifetime", "24h",
		"-audience", "https://graph.microsoft.us", "-server-names", "graph.test,login.test", "-user-identities", "user")
	p.expect("changed\n", "tenant", "-propagation", "", "-server-names", "", "-user-identities", "")
	code, _, problem := p.run("", "tenant", "-max-credential-lifetime", "long")
	require.Equal(t, exitFailure, code)
	require.Contains(t, problem, "duration")
}

// The second listener issues tokens to clients that know the header.
func TestMetadata(t *testing.T) {
	p := start(t)
	info := p.info()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		info.MetadataURL+"/msi/token?api-version=2019-08-01&resource=https://graph.microsoft.com", nil)
	require.NoError(t, err)
	req.Header.Set("X-Identity-Header", info.IdentityHeader)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, string(text), "access_token")
	p.expect("managed-identity started=1 performed=1 answered=1\n", "calls", "managed-identity")
}
