// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// leastSecrets is what every scenario has at least: a client secret, and the key
// that the tenant has from the start.
const leastSecrets = 2

// signsOfLife are what is somewhere in what is searched, if that is all there is to
// search: a log line of the plugin's own, the answers of mdi/status and mdi/config, and a
// refusal that a command line has shown.
var signsOfLife = []string{"deployment access key regenerated", "fingerprint", "drift_check_interval", "Error making API request"}

// evidence is what the tenants of all scenarios have issued. Its zero value is ready.
type evidence struct {
	mu      sync.Mutex
	secrets map[string][]string // by the folder of the scenario's logs
	missing bool                // a tenant could not be asked
}

// collect asks a tenant for its secrets.
func (e *evidence) collect(logs string, t *tenant) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	secrets, err := t.client.Issued(ctx)
	if err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.missing = true
		return fmt.Errorf("asking a tenant for what it has issued: %w", err)
	}
	e.add(logs, secrets)
	return nil
}

// add takes down the secrets of a tenant.
func (e *evidence) add(logs string, secrets []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.secrets == nil {
		e.secrets = map[string][]string{}
	}
	e.secrets[logs] = append(e.secrets[logs], secrets...)
}

// checkLeaks looks for every secret in every log of the scenario in which it was
// issued, and in what its command lines have shown. Findings are named by number, since the test's output is a log as well.
func (s *suite) checkLeaks(t *testing.T) {
	require.False(t, s.evidence.missing, "not all secrets are known")
	require.NotEmpty(t, s.evidence.secrets, "no scenario has run")
	searched, found := 0, map[string]bool{}
	for _, folder := range slices.Sorted(maps.Keys(s.evidence.secrets)) {
		secrets := s.evidence.secrets[folder]
		require.GreaterOrEqual(t, len(secrets), leastSecrets, folder)
		logs, err := filepath.Glob(filepath.Join(folder, "*.log"))
		require.NoError(t, err)
		require.NotEmpty(t, logs, folder)
		for _, log := range logs {
			text, err := os.ReadFile(log) //nolint:gosec // of this run
			require.NoError(t, err)
			require.NotEmpty(t, text, log)
			for _, i := range leaked(string(text), secrets) {
				t.Errorf("secret %d of %s is in %s", i, filepath.Base(folder), filepath.Base(log))
			}
			// The plugin makes some by itself, which no tenant knows.
			if strings.Contains(string(text), "PRIVATE KEY-----") {
				t.Errorf("a private key is in %s of %s", filepath.Base(log), filepath.Base(folder))
			}
			for _, sign := range signsOfLife {
				found[sign] = found[sign] || strings.Contains(string(text), sign)
			}
		}
		searched += len(secrets)
	}
	for _, sign := range signsOfLife {
		require.True(t, found[sign], "%q is nowhere: has everything been searched?", sign)
	}
	t.Logf("searched the logs of %d scenarios for %d secrets", len(s.evidence.secrets), searched)
}

// leaked returns the indices of the secrets that a text contains, as they are or as
// they look in a form, or in a header.
func leaked(text string, secrets []string) []int {
	var found []int
	for i, secret := range secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				found = append(found, i)
				break
			}
		}
	}
	return found
}

// TestLeakedFindsSecrets shows that the search above would find something.
func TestLeakedFindsSecrets(t *testing.T) {
	secrets := []string{"absent", "a+key/with=", "client~secret+", "basic"}
	require.Equal(t, []int{1, 2, 3}, leaked("x a+key/with= y client~secret%2B z YmFzaWM=", secrets))
	require.Empty(t, leaked("nothing to see", secrets))
}

// TestPrivateKeysThatAreStoredAreKnown shows that those are searched for which nobody
// but the plugin has ever seen.
func TestPrivateKeysThatAreStoredAreKnown(t *testing.T) {
	storage := &trippedStorage{Storage: &logical.InmemStorage{}}
	entry, err := logical.StorageEntryJSON("config", map[string]string{
		"client_certificate": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n" +
			"-----BEGIN PRIVATE KEY-----\nfirst\nsecond+/\nthird\nlast=\n-----END PRIVATE KEY-----\n",
	})
	require.NoError(t, err)
	require.NoError(t, storage.Put(t.Context(), entry))
	require.Equal(t, []string{"second+/", "third"}, storage.privateKeys())
}
