// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// Servers listen on ports below those that Linux gives to outgoing connections, from
// 32768 on: a node of a cluster needs its own again when it restarts.
const (
	firstPort = 10000
	lastPort  = 32000
	usualPort = 8200 // of Vault
)

// FreeAddress returns a loopback address whose port is free, and the next one too, which
// Vault also uses: a preferred port if possible, or else any.
func FreeAddress(ctx context.Context, preferred ...int) (string, error) {
	for range 50 {
		preferred = append(preferred, firstPort+rand.IntN(lastPort-firstPort)) //nolint:gosec // any will do
	}
	for _, port := range preferred {
		if isFree(ctx, loopback(port)) && isFree(ctx, loopback(port+1)) {
			return loopback(port), nil
		}
	}
	return "", errors.New("no two free ports in a row")
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
