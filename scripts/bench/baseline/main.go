// SPDX-License-Identifier: MPL-2.0

// Command baseline is a secrets engine that does as little as an engine with leases can:
// a read returns a constant under a lease that cannot be renewed, and revoking the lease
// does nothing. Its cost is that of Vault.
package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

// ttl of the leases, longer than any measurement.
const ttl = 24 * time.Hour

// The answer is as large as the real engine's, since Vault stores a copy with each lease.
var (
	constantKey  = strings.Repeat("k", 88)
	constantTime = time.Unix(0, 0).UTC().Format(time.RFC3339)
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		hclog.New(&hclog.LoggerOptions{Name: "baseline"}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	secret := &framework.Secret{Type: "constant", Revoke: revoke}
	b := &framework.Backend{
		BackendType: logical.TypeLogical,
		Help:        "Returns a constant under a lease, for comparison.",
		Secrets:     []*framework.Secret{secret},
		Paths: []*framework.Path{{
			Pattern: "key/" + framework.GenericNameRegex("role") + "$",
			Fields:  map[string]*framework.FieldSchema{"role": {Type: framework.TypeString, Description: "Any name."}},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: read(secret)},
			},
		}},
	}
	return b, b.Setup(ctx, conf)
}

func read(secret *framework.Secret) framework.OperationFunc {
	return func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
		resp := secret.Response(map[string]any{
			"deployment_access_key": constantKey,
			"key_version":           1,
			"regenerated_at":        constantTime,
			"reused":                true,
		}, map[string]any{})
		resp.Secret.TTL, resp.Secret.MaxTTL = ttl, ttl
		return resp, nil
	}
}

func revoke(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return nil, nil
}
