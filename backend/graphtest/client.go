// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Client controls a simulator that runs in another process.
type Client struct {
	info Info
	http *http.Client
}

// NewClient returns a client for the simulator that info describes. It trusts only that
// simulator's certificate authority.
func NewClient(info Info) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(info.CACertificate)) {
		return nil, errors.New("the simulator's CA certificate is not PEM")
	}
	return &Client{info: info, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}}}, nil
}

// Calls returns the counts of all operations.
func (c *Client) Calls(ctx context.Context) (map[Operation]Calls, error) {
	var calls map[Operation]Calls
	err := c.control(ctx, http.MethodGet, "calls", nil, &calls)
	return calls, err
}

// Issued is [Simulator.Issued].
func (c *Client) Issued(ctx context.Context) ([]string, error) {
	var secrets []string
	err := c.control(ctx, http.MethodGet, "issued", nil, &secrets)
	return secrets, err
}

// Inject queues faults, like [Simulator.Inject].
func (c *Client) Inject(ctx context.Context, faults ...Fault) error {
	return c.control(ctx, http.MethodPost, "faults", faults, nil)
}

// Clear removes all faults and releases what they hold.
func (c *Client) Clear(ctx context.Context) error {
	return c.control(ctx, http.MethodDelete, "faults", nil, nil)
}

// RegenerateInPortal replaces the key, like [Simulator.RegenerateInPortal].
func (c *Client) RegenerateInPortal(ctx context.Context) error {
	return c.control(ctx, http.MethodPost, "portal-regenerate", nil, nil)
}

// Update changes the tenant.
func (c *Client) Update(ctx context.Context, change TenantChange) error {
	return c.control(ctx, http.MethodPost, "tenant", change, nil)
}

// Wait blocks until the counts are reached and returns the counts at that moment.
func (c *Client) Wait(ctx context.Context, wait WaitRequest) (Calls, error) {
	var calls Calls
	err := c.control(ctx, http.MethodPost, "wait", wait, &calls)
	return calls, err
}

// Register reports whether a sensor can be registered with the key, which is sent
// unchanged: a trailing newline makes it another key.
func (c *Client) Register(ctx context.Context, key string) (bool, error) {
	status, body, err := c.send(ctx, http.MethodPost, "/sensors/register", registration{AccessKey: key})
	switch {
	case err != nil:
		return false, err
	case status == http.StatusCreated:
		return true, nil
	case status == http.StatusForbidden:
		return false, nil
	default:
		return false, statusError(status, body)
	}
}

// control calls the control interface and decodes its answer, if any.
func (c *Client) control(ctx context.Context, method, path string, in, out any) error {
	status, body, err := c.send(ctx, method, "/simulator/"+path, in)
	switch {
	case err != nil:
		return err
	case status == http.StatusNoContent:
		return nil
	case status != http.StatusOK:
		return statusError(status, body)
	default:
		return json.Unmarshal(body, out)
	}
}

func (c *Client) send(ctx context.Context, method, path string, in any) (status int, body []byte, err error) {
	var payload bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&payload).Encode(in); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.info.URL+path, &payload)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or failed anyway
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// statusError includes the simulator's explanation, if it gave one.
func statusError(status int, body []byte) error {
	var explained controlError
	if json.Unmarshal(body, &explained) == nil && explained.Error != "" {
		return fmt.Errorf("the simulator answers %d: %s", status, explained.Error)
	}
	return fmt.Errorf("the simulator answers %d", status)
}
