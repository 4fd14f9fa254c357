// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// PluginName is the name of the shipped plugin and of its file.
const PluginName = "vault-plugin-secrets-mdi"

// Programs are what a measurement runs.
type Programs struct {
	Root   string // the repository
	Vault  string // the server's binary, which is the agent's as well
	Plugin string // the shipped plugin
}

// Build builds the plugin by `make build` and finds, or builds, a Vault. Both say on
// stderr what they do.
func Build(ctx context.Context) (Programs, error) {
	root, err := Repository()
	if err != nil {
		return Programs{}, err
	}
	if _, err := Output(ctx, root, nil, "make", "--no-print-directory", "build"); err != nil {
		return Programs{}, err
	}
	vault, err := FindVault(ctx, root)
	if err != nil {
		return Programs{}, err
	}
	return Programs{Root: root, Vault: vault, Plugin: filepath.Join(root, "dist", "plugins", PluginName)}, nil
}

// FindVault returns a Vault's binary, by scripts/vault.sh of the repository at root,
// which builds one if there is none.
func FindVault(ctx context.Context, root string) (string, error) {
	return Output(ctx, root, nil, filepath.Join(root, "scripts", "vault.sh"))
}

// BuildPackage builds a package of a module into a file, with the settings that the
// Makefile has for the plugin, so that nothing but the code differs. The version,
// unless it is empty, is stamped as the plugin's.
func BuildPackage(ctx context.Context, module, pkg, version, file string) error {
	flags := "-s -w"
	if version != "" {
		flags += " -X example.com/vault-plugin-secrets-mdi/backend.Version=" + version
	}
	_, err := Output(ctx, module, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", flags, "-o", file, pkg)
	return err
}

// Repository returns the folder of go.mod, at or above the working directory.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", errors.New("not inside the repository: no go.mod here or above")
		}
		dir = parent
	}
}

// Output runs a program in dir and returns what it prints.
func Output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // this package names the programs
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
