// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"syscall"
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
	client := NewClient(server.URL+"/", "nobody's")

	var answer Answer
	require.NoError(t, client.As("mine").Call(t.Context(), http.MethodGet, "mdi/key/fleet", nil, &answer))
	require.Equal(t, "mdi/key/fleet/1", answer.LeaseID)
	require.Equal(t, 60, answer.LeaseDuration)
	require.JSONEq(t, `{"key_version": 3}`, string(answer.Data))

	var refused *StatusError
	require.ErrorAs(t, client.Call(t.Context(), http.MethodGet, "mdi/key/fleet", nil, nil), &refused)
	require.Equal(t, http.StatusForbidden, refused.Status)
}

func TestClientTellsWhyVaultRefuses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"errors": ["no", "not now"]}`))
	}))
	defer server.Close()
	err := NewClient(server.URL, "").Call(t.Context(), http.MethodPost, "mdi/config", map[string]string{}, nil)
	require.EqualError(t, err, "vault answers 400: no; not now")
}

func TestListOfNothing(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	names, err := NewClient(server.URL, "").List(t.Context(), "sys/leases/lookup/mdi/key")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	// The shell ends at once when it is told to; its child would outlive it.
	p, err := Start(log, []string{"PATH=/usr/bin:/bin"}, "/bin/sh", "-c", "sleep 600 & trap 'exit 0' INT; wait")
	require.NoError(t, err)
	group := p.cmd.Process.Pid
	p.Stop()
	require.Eventually(t, func() bool { return syscall.Kill(-group, 0) != nil }, 5*time.Second, time.Millisecond)
}

func TestAwaitNoticesTheEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(log, nil, "/bin/sh", "-c", "echo no such storage")
	require.NoError(t, err)
	<-p.Ended()
	err = p.await(t.Context(), func(context.Context) bool { return false })
	require.ErrorContains(t, err, "ended by itself")
	require.ErrorContains(t, err, "no such storage")
}

func TestComplaints(t *testing.T) {
	log := "2026-01-01 [INFO] fine\n2026-01-01 [WARN] hm\n2026-01-01 [ERROR] oh: lives on\n"
	require.Equal(t, []string{"2026-01-01 [WARN] hm", "2026-01-01 [ERROR] oh: lives on"}, complaints(log))
}
