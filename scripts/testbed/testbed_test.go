// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClientSendsAndDecodes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/mdi/key/fleet" || r.Header.Get("X-Vault-Token") != "mine" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"lease_id": "mdi/key/fleet/1", "lease_duration": 60, "data": {"key_version": 3}}`))
	}))
	defer server.Close()
	client := NewClient(server.URL+"/", "another", time.Minute)

	var answer struct {
		LeaseID string `json:"lease_id"`
	}
	require.NoError(t, client.As("mine").Call(t.Context(), http.MethodGet, "mdi/key/fleet", nil, &answer))
	require.Equal(t, "mdi/key/fleet/1", answer.LeaseID)

	var refused *StatusError
	require.ErrorAs(t, client.Call(t.Context(), http.MethodGet, "mdi/key/fleet", nil, nil), &refused)
	require.Equal(t, http.StatusForbidden, refused.Status)
}

func TestClientReportsWhyVaultRefuses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"errors": ["no", "not now"]}`))
	}))
	defer server.Close()
	err := NewClient(server.URL, "", 0).Call(t.Context(), http.MethodPost, "mdi/config", map[string]string{}, nil)
	require.Regexp(t, `/v1/mdi/config\n.*400.*\n\n\* no\* not now$`, err)
}

func TestListOfNothing(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	names, err := List(t.Context(), NewClient(server.URL, "", 0), "sys/leases/lookup/mdi/key")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestStopEndsTheChildrenOfAKilledProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	// An interrupt kills the shell, which leaves its child running.
	p, err := Start(log, []string{"PATH=/usr/bin:/bin"}, "/bin/sh", "-c", "sleep 600 & wait")
	require.NoError(t, err)
	var children []int
	require.Eventually(t, func() bool {
		children, err = p.Children()
		return err == nil && len(children) == 1
	}, 5*time.Second, time.Millisecond)
	p.Stop()
	require.Eventually(t, func() bool { return !runs(children[0]) }, 5*time.Second, time.Millisecond)
}

func TestKillLeavesTheChildren(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(log, []string{"PATH=/usr/bin:/bin"}, "/bin/sh", "-c", "sleep 600 & wait")
	require.NoError(t, err)
	var orphans []int
	require.Eventually(t, func() bool {
		orphans, err = p.Children()
		return err == nil && len(orphans) == 1
	}, 5*time.Second, time.Millisecond)
	killed, err := p.Kill()
	require.NoError(t, err)
	require.Equal(t, orphans, killed)
	require.True(t, runs(orphans[0]))
	Kill(orphans...)
	require.Eventually(t, func() bool { return !runs(orphans[0]) }, 5*time.Second, time.Millisecond)
}

// runs reports whether a process is running; a zombie is not.
func runs(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestAwaitNoticesTheEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(log, nil, "/bin/sh", "-c", "echo no such storage")
	require.NoError(t, err)
	<-p.Ended()
	err = p.Await(t.Context(), func(context.Context) bool { return false })
	require.ErrorContains(t, err, "ended unexpectedly")
	require.ErrorContains(t, err, "no such storage")
}

func TestComplaints(t *testing.T) {
	log := "2026-01-01 [INFO] fine\n2026-01-01 [WARN] hm\n2026-01-01 [ERROR] oh: lives on\n"
	require.Equal(t, []string{"2026-01-01 [WARN] hm", "2026-01-01 [ERROR] oh: lives on"}, complaints(log))
}

func TestResidentMemory(t *testing.T) {
	resident, err := residentMemory([]byte("Name:\tplugin\nVmHWM:\t   40000 kB\nVmRSS:\t   31204 kB\nRssAnon:\t   10000 kB\n"))
	require.NoError(t, err)
	require.Equal(t, 31204*1024, resident)
	_, err = residentMemory([]byte("Name:\tplugin\n"))
	require.ErrorContains(t, err, "no resident memory")
}
