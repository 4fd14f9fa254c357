// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// PluginName is the name of the shipped plugin and of its file.
const PluginName = "vault-plugin-secrets-mdi"

// Programs are what a run starts.
type Programs struct {
	Root   string // the repository
	Vault  string // the binary of the server, of the agent and of the command line
	Plugin string // the shipped plugin
}

// Build builds the plugin, and further targets of the Makefile, and finds or builds a
// Vault. Both report on stderr what they do.
func Build(ctx context.Context, targets ...string) (Programs, error) {
	root, err := Repository()
	if err != nil {
		return Programs{}, err
	}
	if _, err := Output(ctx, root, nil, "make", append([]string{"--no-print-directory", "build"}, targets...)...); err != nil {
		return Programs{}, err
	}
	vault, err := FindVault(ctx, root)
	return Programs{Root: root, Vault: vault, Plugin: filepath.Join(root, "dist", "plugins", PluginName)}, err
}

// FindVault returns the path of a Vault's binary. It runs scripts/vault.sh of the
// repository at root, which builds one if there is none.
func FindVault(ctx context.Context, root string) (string, error) {
	return Output(ctx, root, nil, filepath.Join(root, "scripts", "vault.sh"))
}

// BuildPackage builds a package of the module in a folder into a file, with the
// Makefile's settings for the plugin, so that only the code differs. The version, unless
// it is empty, is stamped as the plugin's.
func BuildPackage(ctx context.Context, dir, pkg, version, file string) error {
	flags := "-s -w"
	if version != "" {
		module, err := Output(ctx, dir, nil, "go", "list", "-m")
		if err != nil {
			return err
		}
		flags += " -X " + module + "/backend.Version=" + version
	}
	_, err := Output(ctx, dir, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", flags, "-o", file, pkg)
	return err
}

// BuildRevision builds the plugin of a revision of the repository at root into a file, as
// BuildPackage does.
func BuildRevision(ctx context.Context, root, revision, version, file string) (err error) {
	dir, err := os.MkdirTemp("", "mdi-revision")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	const unpack = `git archive "$0" | tar -x -C "$1"`
	if _, err := Output(ctx, root, nil, "bash", "-o", "pipefail", "-c", unpack, revision, dir); err != nil {
		return err
	}
	return BuildPackage(ctx, dir, "./cmd/"+PluginName, version, file)
}

// Repository returns the folder of the module that the working directory is in.
func Repository() (string, error) {
	return Output(context.Background(), "", nil, "go", "list", "-m", "-f", "{{.Dir}}")
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
