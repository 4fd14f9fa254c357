// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports for servers are below those that Linux gives to outgoing connections, from
// 32768 on: a node of a cluster needs its own again after it has been away.
const (
	firstPort = 10000
	lastPort  = 32000
)

// FreeAddress returns a loopback address whose port is free together with the next
// one, which Vault uses as well.
func FreeAddress(ctx context.Context) (string, error) {
	for range 50 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // any will do
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

// next returns the address with the port that follows.
func next(address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(port)
	return loopback(number + 1), err
}
