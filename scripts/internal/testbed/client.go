// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Client calls Vault's HTTP API with one token. It repeats nothing, since what
// uses it counts requests.
type Client struct {
	address, token string
	http           *http.Client
}

// Answer is what Vault answers to most requests.
type Answer struct {
	LeaseID       string          `json:"lease_id"`
	LeaseDuration int             `json:"lease_duration"` // in seconds
	Data          json.RawMessage `json:"data"`
	Auth          struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
}

// NewClient returns a client for the server at address, such as
// http://127.0.0.1:8200. Any number of requests can be under way, and each that
// has ended leaves its connection to the next.
func NewClient(address, token string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 4096
	return &Client{address: strings.TrimSuffix(address, "/"), token: token, http: &http.Client{Transport: transport}}
}

// Address is the server's.
func (c *Client) Address() string { return c.address }

// As returns a client with another token that shares the connections.
func (c *Client) As(token string) *Client {
	return &Client{address: c.address, token: token, http: c.http}
}

// Call sends a request to a path below /v1/ and decodes the answer into out, both
// as JSON; in and out may be nil. If Vault refuses, it returns a *[StatusError].
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var payload io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+"/v1/"+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or failed anyway
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= http.StatusBadRequest:
		return statusError(resp.StatusCode, body)
	case out == nil || len(body) == 0:
		return nil
	default:
		return json.Unmarshal(body, out)
	}
}

// List returns the names below a path; there may be none.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := c.Call(ctx, "LIST", path, nil, &answer)
	if refused, ok := errors.AsType[*StatusError](err); ok && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return answer.Data.Keys, err
}

// StatusError is a refusal of Vault's.
type StatusError struct {
	Status int
	Errors []string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("vault answers %d: %s", e.Status, strings.Join(e.Errors, "; "))
}

func statusError(status int, body []byte) error {
	refused := &StatusError{Status: status}
	var explained struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &explained) == nil {
		refused.Errors = explained.Errors
	}
	return refused
}
