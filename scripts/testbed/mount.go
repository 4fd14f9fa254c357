// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"
)

// Mount mounts a registered plugin at path and configures it.
func (v *Vault) Mount(ctx context.Context, name, path string, config map[string]any) error {
	if err := Enable(ctx, v, name, path); err != nil {
		return err
	}
	_, err := v.Logical().WriteWithContext(ctx, path+"/config", config)
	return err
}

// Install copies a plugin to the server and registers it with a version unless that is
// empty, to be started with the arguments. The server runs the copy, so that building the
// plugin again does not change a measurement that is under way.
func (v *Vault) Install(ctx context.Context, plugin, version string, arguments ...string) error {
	if _, err := Output(ctx, "", nil, "cp", plugin, v.pluginDir()); err != nil {
		return err
	}
	return Register(ctx, v, filepath.Join(v.pluginDir(), filepath.Base(plugin)), version, arguments...)
}

// Register enters a plugin of the server's plugin folder into the catalog, with a version
// unless that is empty. The plugin has the name of its file up to an underscore, since a
// version can follow there.
func Register(ctx context.Context, vault Caller, plugin, version string, arguments ...string) error {
	content, err := os.ReadFile(plugin) //nolint:gosec // a program that was built for this
	if err != nil {
		return err
	}
	file := filepath.Base(plugin)
	name, _, _ := strings.Cut(file, "_")
	sum := sha256.Sum256(content)
	entry := map[string]any{"sha256": hex.EncodeToString(sum[:]), "command": file, "version": version, "args": arguments}
	if err := vault.Call(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+name, entry, nil); err != nil {
		return fmt.Errorf("registering %s: %w", name, err)
	}
	return nil
}

// Enable mounts a registered plugin at path.
func Enable(ctx context.Context, vault Caller, name, path string) error {
	if err := vault.Call(ctx, http.MethodPost, "sys/mounts/"+path, map[string]string{"type": name}, nil); err != nil {
		return fmt.Errorf("mounting %s: %w", name, err)
	}
	return nil
}

// IssueTokens creates n tokens that may read the paths. It writes the policy of that
// name, which adds to Vault's default policy.
func (c *Client) IssueTokens(ctx context.Context, n int, policy string, ttl time.Duration, paths ...string) ([]string, error) {
	rules := ""
	for _, path := range paths {
		rules += fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", path)
	}
	if err := c.Sys().PutPolicyWithContext(ctx, policy, rules); err != nil {
		return nil, fmt.Errorf("writing the policy %s: %w", policy, err)
	}
	tokens := make([]string, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range tokens {
		group.Go(func() error {
			created, err := c.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{policy}, TTL: ttl.String()})
			if err != nil {
				return fmt.Errorf("creating a token: %w", err)
			}
			tokens[i] = created.Auth.ClientToken
			return nil
		})
	}
	return tokens, group.Wait()
}
