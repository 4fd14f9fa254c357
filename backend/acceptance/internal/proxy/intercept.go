// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"time"
)

const certificateLifetime = 24 * time.Hour

// interceptor is an authority that makes a certificate for whatever name is asked for.
type interceptor struct {
	key       *ecdsa.PrivateKey // of the authority and of all servers
	authority *x509.Certificate
	upstream  *x509.CertPool
}

// newInterceptor returns one that trusts the authority in a file.
func newInterceptor(upstream string) (*interceptor, error) {
	text, err := os.ReadFile(upstream) //nolint:gosec // naming the file is what the flag is for
	if err != nil {
		return nil, err
	}
	i := &interceptor{upstream: x509.NewCertPool()}
	if !i.upstream.AppendCertsFromPEM(text) {
		return nil, errors.New("there is no certificate in the file of the authority")
	}
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := certificateFor("intercepting proxy")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, i.key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	i.authority, err = x509.ParseCertificate(der)
	return i, err
}

func certificateFor(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certificateLifetime),
	}
}

func (i *interceptor) authorityPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.authority.Raw})
}

// issue makes the certificate of a host.
func (i *interceptor) issue(host string) (*tls.Certificate, error) {
	template := certificateFor(host)
	template.DNSNames = []string{host}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, i.authority, i.key.Public(), i.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}, err
}

// open puts itself in the place of the host: what it returns carries the plain text of
// both sides.
func (i *interceptor) open(ctx context.Context, client, server net.Conn, host string) (net.Conn, net.Conn, error) {
	certificate, err := i.issue(host)
	if err != nil {
		return nil, nil, err
	}
	toClient := tls.Server(client, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*certificate}})
	if err := toClient.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	toServer := tls.Client(server, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: i.upstream, ServerName: host})
	return toClient, toServer, toServer.HandshakeContext(ctx)
}
