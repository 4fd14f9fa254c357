// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

const (
	declared = "declared" // audit device in the configuration of a server
	auditLog = "audit.log"
)

// testDeclared runs a server whose configuration registers the plugin and enables an audit
// device: OpenBao's way. It mounts the plugin without having registered it otherwise.
func (s *suite) testDeclared(t *testing.T) {
	t.Parallel()
	c := s.startDeclared(t, "declared", map[string]any{"command": testbed.PluginName})
	s.needs(t.Context(), t, c.nodes[0], declaredPlugins)
	s.needs(t.Context(), t, c.nodes[0], declaredAudit)
	c.leaseDeclared(t)
	audited, err := os.ReadFile(filepath.Join(c.sc.logs, auditLog))
	require.NoError(t, err)
	require.Contains(t, string(audited), `"path":"mdi/key"`)
}

// testDeclaredImage has the server take the plugin from an image as Containerfile makes it.
func (s *suite) testDeclaredImage(t *testing.T) {
	t.Parallel()
	plugin := map[string]any{"image": s.serveImage(t), "binary_name": testbed.PluginName}
	c := s.startDeclared(t, "declared-image", plugin)
	s.needs(t.Context(), t, c.nodes[0], declaredPlugins)
	c.leaseDeclared(t)
}

// startDeclared runs a server of one node whose configuration has the plugin and an audit
// device. Other servers ignore both.
func (s *suite) startDeclared(t *testing.T, name string, plugin map[string]any) *cluster {
	t.Helper()
	sc := s.startScenario(t, name, "tenant")
	content, err := os.ReadFile(s.plugin())
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(s.scripts, "..", "docs", "openbao.md"))
	require.NoError(t, err)
	for name := range plugin {
		require.Regexp(t, `(?m)^  `+name+` +=`, string(page), "docs/openbao.md has another stanza")
	}
	maps.Copy(plugin, map[string]any{"type": "secret", "name": testbed.PluginName, "version": pluginVersion, "sha256sum": digest(content)})
	device := map[string]any{"type": "file", "path": declared, "options": map[string]any{"file_path": filepath.Join(sc.logs, auditLog)}}
	c := &cluster{sc: sc}
	if plugin["image"] != nil { // which the server fills its folder from
		c.plugins = filepath.Join(sc.work, "plugins")
		require.NoError(t, os.Mkdir(c.plugins, 0o700))
	}
	c.settings = map[string]any{
		"plugin":               []any{plugin},
		"plugin_auto_download": true,
		"plugin_auto_register": true,
		"audit":                []any{device},
	}
	c.startSingle(t)
	c.unsealed(t)
	return c
}

// leaseDeclared mounts the plugin in the declared version and leases a key.
func (c *cluster) leaseDeclared(t *testing.T) {
	t.Helper()
	n := c.nodes[0]
	require.NoError(t, testbed.Enable(t.Context(), n, testbed.PluginName, "mdi"))
	require.Equal(t, pluginVersion, c.vault(t, "read", "-field=running_plugin_version", "sys/mounts/mdi"))
	require.NoError(t, n.Call(t.Context(), http.MethodPost, "mdi/config", testbed.ConfigFields(c.sc.tenants[0].info), nil))
	got, err := read(t.Context(), n.Client, "mdi/key").key()
	require.NoError(t, err)
	registers, err := c.sc.tenants[0].client.Register(t.Context(), got.Data.Key)
	require.NoError(t, err)
	require.True(t, registers)
}

// serveImage serves an image whose root has the plugin, as a registry does, and returns its
// name. Its tag is the plugin's version.
func (s *suite) serveImage(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(s.plugin())
	require.NoError(t, err)
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	require.NoError(t, archive.WriteHeader(&tar.Header{Name: testbed.PluginName, Mode: 0o755, Size: int64(len(content))}))
	_, err = archive.Write(content)
	require.NoError(t, err)
	require.NoError(t, archive.Close())

	const image = "application/vnd.oci.image."
	blobs := map[string][]byte{}
	blob := func(kind string, content []byte) map[string]any {
		name := "sha256:" + digest(content)
		blobs[name] = content
		return map[string]any{"mediaType": image + kind, "digest": name, "size": len(content)}
	}
	layers := blob("layer.v1.tar", layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"os": runtime.GOOS, "architecture": runtime.GOARCH, "config": map[string]any{"Entrypoint": []string{"/" + testbed.PluginName}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{layers["digest"]}},
	})
	require.NoError(t, err)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": image + "manifest.v1+json", "config": blob("config.v1+json", config), "layers": []any{layers},
	})
	require.NoError(t, err)
	blobs[pluginVersion] = manifest
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, found := blobs[path.Base(r.URL.Path)]
		if r.URL.Path != "/v2/" && !found {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", image+"manifest.v1+json")
		_, _ = w.Write(content)
	}))
	t.Cleanup(registry.Close)
	return fmt.Sprintf("%s/mdi/%s", strings.TrimPrefix(registry.URL, "http://"), testbed.PluginName)
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
