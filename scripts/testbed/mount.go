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
	"time"

	"golang.org/x/sync/errgroup"
)

// Mount installs a plugin and mounts it at path.
func (v *Vault) Mount(ctx context.Context, plugin, path string) error {
	if err := v.Install(ctx, plugin); err != nil {
		return err
	}
	return Enable(ctx, v, filepath.Base(plugin), path)
}

// Install copies a plugin to the server and registers it under the name of its file;
// it is started with the arguments. The server runs the copy: whoever builds the
// plugin anew does not change a measurement that is under way.
func (v *Vault) Install(ctx context.Context, plugin string, arguments ...string) error {
	content, err := os.ReadFile(plugin) //nolint:gosec // a program that was built for this
	if err != nil {
		return err
	}
	installed := filepath.Join(v.pluginDir(), filepath.Base(plugin))
	if err := os.WriteFile(installed, content, 0o700); err != nil { //nolint:gosec // a program has to be executable
		return err
	}
	return Register(ctx, v, installed, "", arguments...)
}

// Register enters a plugin, which is in the server's folder of plugins, into the
// catalog under the name of its file, with a version unless that is empty.
func Register(ctx context.Context, vault Caller, plugin, version string, arguments ...string) error {
	content, err := os.ReadFile(plugin) //nolint:gosec // a program that was built for this
	if err != nil {
		return err
	}
	name := filepath.Base(plugin)
	sum := sha256.Sum256(content)
	entry := map[string]any{"sha256": hex.EncodeToString(sum[:]), "command": name, "version": version, "args": arguments}
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

// Reload ends the process of a plugin, with whatever it knows, for Vault to start
// another one.
func Reload(ctx context.Context, vault Caller, name string) error {
	if err := vault.Call(ctx, http.MethodPut, "sys/plugins/reload/backend", map[string]string{"plugin": name}, nil); err != nil {
		return fmt.Errorf("reloading %s: %w", name, err)
	}
	return nil
}

// IssueTokens makes n tokens that may read the paths, besides what Vault's default
// policy allows every token. The policy of that name is written for it.
func (c *Client) IssueTokens(ctx context.Context, n int, policy string, ttl time.Duration, paths ...string) ([]string, error) {
	rules := ""
	for _, path := range paths {
		rules += fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", path)
	}
	if err := c.Call(ctx, http.MethodPut, "sys/policies/acl/"+policy, map[string]string{"policy": rules}, nil); err != nil {
		return nil, fmt.Errorf("writing the policy %s: %w", policy, err)
	}
	tokens := make([]string, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range tokens {
		group.Go(func() error {
			var answer Answer
			err := c.Call(ctx, http.MethodPost, "auth/token/create", map[string]any{
				"policies": []string{policy},
				"ttl":      ttl.String(),
			}, &answer)
			tokens[i] = answer.Auth.ClientToken
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("creating tokens: %w", err)
	}
	return tokens, nil
}
