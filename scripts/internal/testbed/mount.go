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

// Mount registers a plugin under the name of its file and mounts it at path. The
// server runs a copy: whoever builds the plugin anew does not change a measurement
// that is under way.
func (v *Vault) Mount(ctx context.Context, plugin, path string) error {
	content, err := os.ReadFile(plugin) //nolint:gosec // a program that was built for this
	if err != nil {
		return err
	}
	name := filepath.Base(plugin)
	if err := os.WriteFile(filepath.Join(v.pluginDir(), name), content, 0o700); err != nil { //nolint:gosec // a program has to be executable
		return err
	}
	sum := sha256.Sum256(content)
	err = v.Call(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+name,
		map[string]string{"sha256": hex.EncodeToString(sum[:]), "command": name}, nil)
	if err != nil {
		return fmt.Errorf("registering %s: %w", name, err)
	}
	if err := v.Call(ctx, http.MethodPost, "sys/mounts/"+path, map[string]string{"type": name}, nil); err != nil {
		return fmt.Errorf("mounting %s: %w", name, err)
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

// Irrevocable returns how many leases Vault has given up to revoke.
func (c *Client) Irrevocable(ctx context.Context) (int, error) {
	var answer struct {
		Data struct {
			Count int `json:"lease_count"`
		} `json:"data"`
	}
	err := c.Call(ctx, http.MethodGet, "sys/leases/count?type=irrevocable", nil, &answer)
	return answer.Data.Count, err
}
