// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"
)

// Caller sends requests to Vault: a [Client], or something that chooses among several.
type Caller interface {
	// Call sends a request to a path below /v1/ and decodes the answer into out,
	// both as JSON; in and out may be nil. If Vault refuses, it returns a
	// *[StatusError].
	Call(ctx context.Context, method, path string, in, out any) error
}

// Client calls Vault with one token. It repeats nothing, since its users count requests.
type Client struct {
	*api.Client
	config *api.Config
}

// Response is Vault's answer to a request, whether it agreed or not.
type Response struct {
	Status int // 0: there was none
	Body   []byte
}

// StatusError is a refusal of Vault's.
type StatusError struct {
	error
	Status int
}

// NewClient returns a client for the server at address, such as
// http://127.0.0.1:8200, whose requests may take as long as limit; 0 means no limit.
// Any number of them can be under way, and each leaves its connection to the next.
func NewClient(address, token string, limit time.Duration) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 4096
	// Not api.Config.Timeout: it ends the reading of a raw answer before it begins.
	return newClient(&api.Config{Address: address, HttpClient: &http.Client{Transport: transport, Timeout: limit}}, token)
}

func newClient(config *api.Config, token string) *Client {
	client, err := api.NewClient(config)
	if err != nil {
		panic(err) // the address, or a variable such as VAULT_RATE_LIMIT, makes no sense
	}
	client.ClearNamespace() // that of another Vault of the user's
	client.SetToken(token)
	return &Client{client, config}
}

// As returns a client with another token that shares the connections.
func (c *Client) As(token string) *Client { return newClient(c.config, token) }

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() { c.config.HttpClient.CloseIdleConnections() }

// Send sends a request to a path below /v1/, with in as JSON. The response is complete
// even if Vault refuses, which is an error.
func (c *Client) Send(ctx context.Context, method, path string, in any) (Response, error) {
	target, err := url.Parse(path)
	body, encoding := json.Marshal(in)
	if err := errors.Join(err, encoding); err != nil {
		return Response{}, err
	}
	var resp *api.Response
	switch method {
	case http.MethodGet:
		resp, err = c.Logical().ReadRawWithDataWithContext(ctx, target.Path, target.Query())
	case http.MethodPut, http.MethodPost: // the same to Vault
		resp, err = c.Logical().WriteRawWithContext(ctx, target.Path, body)
	default:
		err = errors.New("only for reads and writes: " + method)
	}
	if resp == nil {
		return Response{}, err
	}
	content, reading := io.ReadAll(resp.Body)
	return Response{resp.StatusCode, content}, errors.Join(err, reading, resp.Body.Close())
}

// Call implements [Caller].
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.Send(ctx, method, path, in)
	if refused, ok := errors.AsType[*api.ResponseError](err); ok {
		return &StatusError{refused, refused.StatusCode}
	}
	if err != nil || out == nil || len(resp.Body) == 0 {
		return err
	}
	return json.Unmarshal(resp.Body, out)
}

// Health returns the status of the server's answer about its state: 200 active, 429
// standby, 501 not initialised, 503 sealed; 0: there is none.
func (c *Client) Health(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, _ := c.Send(ctx, http.MethodGet, "sys/health", nil)
	return resp.Status
}

// List returns the names below a path; there may be none.
func List(ctx context.Context, vault Caller, path string) ([]string, error) {
	var answer struct{ Data struct{ Keys []string } }
	err := vault.Call(ctx, http.MethodGet, path+"?list=true", nil, &answer)
	if refused, ok := errors.AsType[*StatusError](err); ok && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return answer.Data.Keys, err
}

// Irrevocable returns the number of leases that Vault has given up revoking.
func Irrevocable(ctx context.Context, vault Caller) (int, error) {
	var answer struct {
		Data struct {
			Count int `json:"lease_count"`
		}
	}
	err := vault.Call(ctx, http.MethodGet, "sys/leases/count?type=irrevocable", nil, &answer)
	return answer.Data.Count, err
}
