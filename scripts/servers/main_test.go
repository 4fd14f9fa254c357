// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// host serves a feed and the files that it names.
type host struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte // by path
}

// set serves a file; nil removes it.
func (h *host) set(path string, content []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.files[path] = content; content == nil {
		delete(h.files, path)
	}
}

func (h *host) get(path string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[path]
}

func newHost(t *testing.T) *host {
	h := &host{files: map[string][]byte{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content := h.get(r.URL.Path)
		if content == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(h.Close)
	return h
}

// add serves an archive, and a list of checksums under each of the names.
func (h *host) add(folder, name string, archive []byte, lists ...string) {
	h.set(folder+name, archive)
	for _, list := range lists {
		h.set(folder+list, append(h.get(folder+list), fmt.Sprintf("%x  %s\n", sha256.Sum256(archive), name)...))
	}
}

// binary is what a release of a version has.
func binary(product, version string) []byte {
	return []byte("#!/bin/sh\necho " + product + " " + version + "\n")
}

func zipped(t *testing.T, name string, content []byte) []byte {
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for file, content := range map[string][]byte{"LICENSE.txt": []byte("licence"), name: content} {
		out, err := w.Create(file)
		require.NoError(t, err)
		_, err = out.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return archive.Bytes()
}

func tarred(t *testing.T, name string, content []byte) []byte {
	var archive bytes.Buffer
	zipper := gzip.NewWriter(&archive)
	w := tar.NewWriter(zipper)
	for file, content := range map[string][]byte{"LICENSE": []byte("licence"), name: content} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: file, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zipper.Close())
	return archive.Bytes()
}

// vault serves releases as releases.hashicorp.com does.
func (h *host) vault(t *testing.T, versions ...string) {
	index := map[string]any{}
	for _, v := range versions {
		folder, sums := "/vault/"+v+"/", "vault_"+v+"_SHA256SUMS"
		var builds []any
		for _, arch := range []string{runtime.GOARCH, "mips"} {
			name := fmt.Sprintf("vault_%s_%s_%s.zip", v, runtime.GOOS, arch)
			h.add(folder, name, zipped(t, "vault", binary("vault", v+arch)), sums)
			builds = append(builds, map[string]string{"os": runtime.GOOS, "arch": arch, "filename": name, "url": h.URL + folder + name})
		}
		index[v] = map[string]any{"version": v, "shasums": sums, "builds": builds}
	}
	h.encode(t, map[string]any{"name": "vault", "versions": index})
}

// openbao serves releases as GitHub does, the older ones with the names that they have.
func (h *host) openbao(t *testing.T, tags ...string) {
	var list []any
	for _, tag := range tags {
		v := tag[1:]
		folder, name, sums := "/download/"+tag+"/", fmt.Sprintf("openbao_%s_%s_%s.tar.gz", v, runtime.GOOS, runtime.GOARCH), "checksums.txt"
		if v < "2.6" {
			name, sums = fmt.Sprintf("bao_%s_Linux_%s.tar.gz", v, map[string]string{"amd64": "x86_64"}[runtime.GOARCH]), "checksums-linux.txt"
			h.set(folder+"checksums-darwin.txt", []byte("0  another.tar.gz\n"))
		}
		h.add(folder, name, tarred(t, "bao", binary("openbao", v)), sums)
		h.add(folder, "openbao-hsm_"+v+"_linux_amd64.tar.gz", tarred(t, "bao", binary("hsm", v)), sums)
		var assets []any
		for file := range h.files {
			if filepath.Dir(file)+"/" == folder {
				assets = append(assets, map[string]string{"name": filepath.Base(file), "browser_download_url": h.URL + file})
			}
		}
		list = append(list, map[string]any{"tag_name": tag, "assets": assets, "prerelease": v == "2.9.0", "draft": v == "2.8.0"})
	}
	h.encode(t, list)
}

func (h *host) encode(t *testing.T, feed any) {
	text, err := json.Marshal(feed)
	require.NoError(t, err)
	h.set("/feed", text)
}

// install runs the command and returns the one file that it has made, and its content.
func (h *host) install(t *testing.T, product, which string) (name, content string, err error) {
	dir := t.TempDir()
	err = run(t.Context(), []string{"-into", dir, "-feed", h.URL + "/feed", product, which})
	files, _ := os.ReadDir(dir)
	if len(files) == 0 {
		return "", "", err
	}
	require.Len(t, files, 1)
	text, reading := os.ReadFile(filepath.Join(dir, files[0].Name())) //nolint:gosec // in the test's folder
	require.NoError(t, reading)
	return files[0].Name(), string(text), err
}

// A release that does not exist yet is chosen once its feed has it.
func TestInstall(t *testing.T) {
	vaults := []string{"2.0.1", "2.1.9", "2.1.10", "1.21.7", "1.19.18", "1.19.2", "2.2.0-rc1", "2.1.11+ent", "2.1.12+ent.hsm.fips1403"}
	baos := []string{"v2.7.0", "v2.6.3", "v2.6.2", "v2.5.5", "v2.7.1-beta20261001", "v2.8.0", "v2.9.0"}
	type choices map[string]string
	for _, step := range []struct{ vault, openbao choices }{
		{
			choices{"newest": "2.1.10", "previous": "2.0.1", "1.21": "1.21.7", "1.19": "1.19.18"},
			choices{"newest": "2.7.0", "previous": "2.6.3", "2.5": "2.5.5"},
		},
		{
			choices{"newest": "3.0.0", "previous": "2.1.10", "1.21": "1.21.7"},
			choices{"newest": "2.10.0", "previous": "2.7.0", "2.6": "2.6.3"},
		},
	} {
		h := newHost(t)
		h.vault(t, vaults...)
		for which, want := range step.vault {
			name, content, err := h.install(t, "vault", which)
			require.NoError(t, err)
			require.Equal(t, "vault-"+want, name, which)
			require.Equal(t, string(binary("vault", want+runtime.GOARCH)), content)
		}
		h.openbao(t, baos...)
		for which, want := range step.openbao {
			name, content, err := h.install(t, "openbao", which)
			require.NoError(t, err)
			require.Equal(t, "openbao-"+want, name, which)
			require.Equal(t, string(binary("openbao", want)), content)
		}
		vaults, baos = append(vaults, "3.0.0"), append(baos, "v2.10.0")
	}
}

// TestWorkflow runs the step of the workflow that downloads a server, for each of its rows.
func TestWorkflow(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".github", "workflows", "servers.yml"))
	require.NoError(t, err)
	step := regexp.MustCompile(`(?m)^ +run: (make server .*)$`).FindSubmatch(text)
	require.NotNil(t, step)
	rows := regexp.MustCompile(`(?m)^ +- ((vault|openbao) \S+)$`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, rows)
	vault, openbao := newHost(t), newHost(t)
	vault.vault(t, "2.1.1", "2.0.4", "1.21.7", "1.19.18")
	openbao.openbao(t, "v2.7.0", "v2.6.3")
	feeds := map[string]string{"vault": vault.URL, "openbao": openbao.URL}
	for _, row := range rows {
		dir := t.TempDir()
		environment := filepath.Join(dir, "environment")
		cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", string(step[1])) //nolint:gosec // the workflow's
		cmd.Dir = root
		// Not what a make that runs this test has to say to its children.
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=") })
		cmd.Env = append(cmd.Env, "GITHUB_ENV="+environment, "SERVER=-into "+dir+" -feed "+feeds[row[2]]+"/feed "+row[1])
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		set, err := os.ReadFile(environment) //nolint:gosec // in the test's folder
		require.NoError(t, err)
		file, found := strings.CutPrefix(strings.TrimSpace(string(set)), "VAULT_BIN=")
		require.True(t, found, string(set))
		require.Regexp(t, "^"+row[2]+`-\d+\.\d+\.\d+$`, filepath.Base(file))
		require.FileExists(t, file)
	}
}

// What is not what its release says is not installed.
func TestNothingUncheckedIsInstalled(t *testing.T) {
	archive := fmt.Sprintf("/vault/2.1.0/vault_2.1.0_%s_%s.zip", runtime.GOOS, runtime.GOARCH)
	const sums = "/vault/2.1.0/vault_2.1.0_SHA256SUMS"
	for says, spoil := range map[string]func(h *host){
		"has the checksum":    func(h *host) { h.set(archive, zipped(t, "vault", []byte("another"))) },
		"has no checksum for": func(h *host) { h.set(sums, []byte{}) },
		sums + ": 404":        func(h *host) { h.set(sums, nil) },
		archive + ": 404":     func(h *host) { h.set(archive, nil) },
		"file does not exist": func(h *host) {
			delete(h.files, sums)
			h.add("/vault/2.1.0/", filepath.Base(archive), zipped(t, "other", nil), filepath.Base(sums))
		},
		"there is no release of 2.1": func(h *host) { h.vault(t, "2.0.0") },
		"the feed":                   func(h *host) { h.set("/feed", []byte("<html>")) },
		"/feed: 404":                 func(h *host) { h.set("/feed", nil) },
	} {
		h := newHost(t)
		h.vault(t, "2.1.0")
		spoil(h)
		name, _, err := h.install(t, "vault", "2.1")
		require.ErrorContains(t, err, says)
		require.Empty(t, name)
	}
	for _, arguments := range [][]string{nil, {"vault"}, {"consul", "newest"}, {"vault", "newest", "more"}} {
		require.ErrorContains(t, run(t.Context(), arguments), "usage")
	}
}
