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
	"time"
)

// Caller is what calls Vault: a [Client], or what chooses among several.
type Caller interface {
	// Call sends a request to a path below /v1/ and decodes the answer into out,
	// both as JSON; in and out may be nil. If Vault refuses, it returns a
	// *[StatusError].
	Call(ctx context.Context, method, path string, in, out any) error
}

// Client calls Vault's HTTP API with one token. It repeats nothing, since what
// uses it counts requests.
type Client struct {
	address, token string
	http           *http.Client
}

var _ Caller = (*Client)(nil)

// Answer is what Vault answers to most requests.
type Answer struct {
	LeaseID       string          `json:"lease_id"`
	LeaseDuration int             `json:"lease_duration"` // in seconds
	Data          json.RawMessage `json:"data"`
	Auth          struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
}

// Response is what came of a request, whether Vault agreed or not.
type Response struct {
	Status int // 0: there was none
	Body   []byte
}

// NewClient returns a client for the server at address, such as
// http://127.0.0.1:8200, whose requests may take as long as limit, or with 0 as long
// as they like. Any number of them can be under way, and each that has ended leaves
// its connection to the next.
func NewClient(address, token string, limit time.Duration) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 4096
	return &Client{
		address: strings.TrimSuffix(address, "/"),
		token:   token,
		http:    &http.Client{Transport: transport, Timeout: limit},
	}
}

// Address is the server's.
func (c *Client) Address() string { return c.address }

// Token is the one that the client sends.
func (c *Client) Token() string { return c.token }

// As returns a client with another token that shares the connections.
func (c *Client) As(token string) *Client {
	return &Client{address: c.address, token: token, http: c.http}
}

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Send sends a request to a path below /v1/, with in as JSON unless it is nil. An
// answer of any status is no error.
func (c *Client) Send(ctx context.Context, method, path string, in any) (Response, error) {
	var payload io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return Response{}, err
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+"/v1/"+path, payload)
	if err != nil {
		return Response{}, err
	}
	req.Header.Set("X-Vault-Token", c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return Response{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return Response{resp.StatusCode, body}, errors.Join(err, resp.Body.Close())
}

// Call implements [Caller].
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.Send(ctx, method, path, in)
	switch {
	case err != nil:
		return err
	case resp.Status >= http.StatusBadRequest:
		return fmt.Errorf("%s: %w", path, statusError(resp))
	case out == nil || len(resp.Body) == 0:
		return nil
	default:
		return json.Unmarshal(resp.Body, out)
	}
}

// Health returns how the server answers the question for its state: 200 active, 429
// standby, 501 not initialised, 503 sealed; 0: not at all.
func (c *Client) Health(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, err := c.Send(ctx, http.MethodGet, "sys/health", nil)
	if err != nil {
		return 0
	}
	return resp.Status
}

// List returns the names below a path; there may be none.
func List(ctx context.Context, vault Caller, path string) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := vault.Call(ctx, "LIST", path, nil, &answer)
	if refused, ok := errors.AsType[*StatusError](err); ok && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return answer.Data.Keys, err
}

// Irrevocable returns how many leases Vault has given up to revoke.
func Irrevocable(ctx context.Context, vault Caller) (int, error) {
	var answer struct {
		Data struct {
			Count int `json:"lease_count"`
		} `json:"data"`
	}
	err := vault.Call(ctx, http.MethodGet, "sys/leases/count?type=irrevocable", nil, &answer)
	return answer.Data.Count, err
}

// StatusError is a refusal of Vault's.
type StatusError struct {
	Status int
	Errors []string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("vault answers %d: %s", e.Status, strings.Join(e.Errors, "; "))
}

func statusError(resp Response) error {
	refused := &StatusError{Status: resp.Status}
	var explained struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(resp.Body, &explained) == nil {
		refused.Errors = explained.Errors
	}
	return refused
}
