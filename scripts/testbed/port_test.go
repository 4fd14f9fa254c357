// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Nobody listens on any of these ports: that they can be bound must not be enough.
func TestNoPortIsGivenTwice(t *testing.T) {
	const callers = 300 // by chance alone, six pairs of them overlap
	var (
		wg    sync.WaitGroup
		mutex sync.Mutex
		given = map[uint16]int{}
	)
	for range callers {
		wg.Go(func() {
			address, err := FreeAddress(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			port := netip.MustParseAddrPort(address).Port()
			mutex.Lock()
			defer mutex.Unlock()
			given[port]++
			given[port+1]++
		})
	}
	wg.Wait()
	for port, times := range given {
		require.Equal(t, 1, times, "port %d", port)
	}
}

// Another process is seen by its claims, of either port.
func TestPortThatIsClaimedIsNotGiven(t *testing.T) {
	for claimed := range 2 {
		socket, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		require.NoError(t, err)
		port := socket.LocalAddr().(*net.UDPAddr).Port - claimed
		address, err := FreeAddress(t.Context(), port)
		require.NoError(t, err)
		require.NotEqual(t, loopback(port), address)
		require.NoError(t, socket.Close())
	}
}
