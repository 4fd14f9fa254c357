// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// api calls a Vault through its HTTP interface, for tests that call it too often for
// its command line.
type api struct {
	address, token string
	http           *http.Client
}

func newAPI(address, token string) *api {
	// A handler of the engine answers within 20 s.
	return &api{address: address, token: token, http: &http.Client{Timeout: 30 * time.Second}}
}

// apiError is an answer that is none.
type apiError struct {
	path   string
	status int
	body   string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%s: HTTP %d: %s", e.path, e.status, e.body)
}

// call sends in, unless it is nil, and decodes the answer into out, unless that is
// nil. What Vault refuses is an *apiError.
func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	payload := []byte{}
	if in != nil {
		var err error
		if payload, err = json.Marshal(in); err != nil {
			return err
		}
	}
	r := a.send(ctx, method, path, payload)
	switch {
	case r.err != nil:
		return r.err
	case r.status >= http.StatusBadRequest:
		return &apiError{path, r.status, string(r.body)}
	case out == nil:
		return nil
	default:
		return json.Unmarshal(r.body, out)
	}
}

// read reads a path of Vault once.
func (a *api) read(ctx context.Context, path string) reading {
	return a.send(ctx, http.MethodGet, path, nil)
}

func (a *api) send(ctx context.Context, method, path string, payload []byte) reading {
	req, err := http.NewRequestWithContext(ctx, method, a.address+"/v1/"+path, bytes.NewReader(payload))
	if err != nil {
		return reading{err: err}
	}
	req.Header.Set("X-Vault-Token", a.token)
	resp, err := a.http.Do(req)
	if err != nil {
		return reading{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	return reading{resp.StatusCode, body, errors.Join(err, resp.Body.Close())}
}
