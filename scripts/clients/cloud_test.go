// SPDX-License-Identifier: MPL-2.0

package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

const (
	entraHost    = "login.microsoftonline.com"
	graphHost    = "graph.microsoft.com"
	metadataHost = "169.254.169.254"
)

// cloud is a simulator under the names of Microsoft's public cloud.
type cloud struct {
	*graphtest.Simulator
	transport *http.Transport
	metadata  string
	audience  string
}

func (c *cloud) scopes() []string { return []string{c.audience + "/.default"} }

func newCloud(t *testing.T, opts ...graphtest.Option) *cloud {
	t.Helper()
	sim := graphtest.Start(t, append(opts, graphtest.WithServerNames(entraHost, graphHost))...)
	c := &cloud{Simulator: sim, metadata: sim.StartMetadata(t), audience: "https://" + graphHost}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(sim.CACertificate())))
	c.transport = &http.Transport{
		DialContext:     c.dial,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}
	t.Cleanup(c.transport.CloseIdleConnections)
	return c
}

// dial connects to the simulator, and to nothing else.
func (c *cloud) dial(ctx context.Context, network, address string) (net.Conn, error) {
	metadata := strings.TrimPrefix(c.metadata, "http://")
	simulated, ok := map[string]string{
		entraHost + ":443":   strings.TrimPrefix(c.URL(), "https://"),
		graphHost + ":443":   strings.TrimPrefix(c.URL(), "https://"),
		metadataHost + ":80": metadata,
		metadata:             metadata,
	}[address]
	if !ok {
		return nil, fmt.Errorf("%s is not simulated", address)
	}
	return new(net.Dialer).DialContext(ctx, network, simulated)
}

// options are all that a client of the Azure SDK has to be told.
func (c *cloud) options() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: &http.Client{Transport: c.transport}}
}
