// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// The files in a simulator's directory. infoFile is written last and removed at the end:
// while it exists, the simulator answers.
const (
	caFile   = "ca.pem"
	infoFile = "simulator.json"
)

// publish writes how other processes reach a simulator. It first removes what an earlier
// simulator left behind.
func publish(dir string, info graphtest.Info) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()             // no writes are left to fail
	text, err := json.MarshalIndent(info, "", "  ") //nolint:gosec // the client secret is what readers need
	if err != nil {
		return err
	}
	return errors.Join(
		remove(root, infoFile),
		writeFile(root, caFile, []byte(info.CACertificate)),
		writeFile(root, infoFile, append(text, '\n')),
	)
}

// withdraw removes the file that means that a simulator answers.
func withdraw(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(remove(root, infoFile), root.Close())
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lookup reads what publish wrote.
func lookup(dir string) (graphtest.Info, error) {
	var info graphtest.Info
	if dir == "" {
		return info, usageError{errors.New("no simulator given: set -dir or " + dirVariable)}
	}
	text, err := os.ReadFile(filepath.Join(filepath.Clean(dir), infoFile))
	if err != nil {
		return info, fmt.Errorf("no simulator answers: %w", err)
	}
	return info, json.Unmarshal(text, &info)
}

// writeFile creates a file in one step, readable only by its owner: a reader finds all of
// it or nothing.
func writeFile(root *os.Root, name string, text []byte) error {
	if err := root.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return root.Rename(name+".new", name)
}
