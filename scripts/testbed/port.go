// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// Servers listen on ports below those that Linux gives to outgoing connections, from
// 32768 on: a node of a cluster needs its own again when it restarts.
const (
	firstPort = 10000
	lastPort  = 32000
	usualPort = 8200 // of Vault
)

// claims are the ports that [FreeAddress] has given to this process. A server listens on
// its ports only later, on its cluster's when it is unsealed, and it leaves them while it
// restarts: that a port can be bound does not show that nobody was given it. Each claim
// is the UDP socket of that number. Vault does not use it, other runs on the machine see
// it, and the kernel drops it with the process.
var claims struct {
	sync.Mutex
	held []net.PacketConn
}

// FreeAddress returns a loopback address whose port is free, and the next one too, which
// Vault also uses: a preferred port if possible, or else any. No other call returns
// either of them as long as this process lives, whichever process makes it.
func FreeAddress(ctx context.Context, preferred ...int) (string, error) {
	for range 50 {
		preferred = append(preferred, firstPort+rand.IntN(lastPort-firstPort)) //nolint:gosec // any will do
	}
	for _, port := range preferred {
		// The claims come first: to see whether a port is free is to take it for a moment.
		if claim(ctx, port) && claim(ctx, port+1) && isFree(ctx, loopback(port)) && isFree(ctx, loopback(port+1)) {
			return loopback(port), nil
		}
	}
	return "", errors.New("no two free ports in a row")
}

// claim returns false if another call has the port.
func claim(ctx context.Context, port int) bool {
	socket, err := new(net.ListenConfig).ListenPacket(ctx, "udp", loopback(port))
	if err != nil {
		return false
	}
	claims.Lock()
	defer claims.Unlock()
	claims.held = append(claims.held, socket)
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(ctx context.Context, address string) bool {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	return err == nil && l.Close() == nil
}

// next returns the address with the next port.
func next(address string) (string, error) {
	parsed, err := netip.ParseAddrPort(address)
	return loopback(int(parsed.Port()) + 1), err
}
