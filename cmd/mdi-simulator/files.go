// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"vault-plugin-secrets-mdi/backend/graphtest"
)

// The files in a simulator's directory. infoFile is written last and removed at
// the end: while it exists, the simulator answers.
const (
	caFile   = "ca.pem"
	infoFile = "simulator.json"
)

// publish tells other processes how to reach a simulator. What a former one has
// left behind goes first, so that nobody mistakes it for this one.
func publish(dir string, info graphtest.Info) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := withdraw(dir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, caFile), []byte(info.CACertificate)); err != nil {
		return err
	}
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, infoFile), append(text, '\n'))
}

// withdraw removes the file that says that a simulator answers.
func withdraw(dir string) error {
	err := os.Remove(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lookup reads what publish has written.
func lookup(dir string) (graphtest.Info, error) {
	var info graphtest.Info
	if dir == "" {
		return info, usageError{errors.New("which simulator? Set -dir or " + dirVariable)}
	}
	text, err := os.ReadFile(filepath.Join(filepath.Clean(dir), infoFile))
	if err != nil {
		return info, fmt.Errorf("no simulator answers: %w", err)
	}
	return info, json.Unmarshal(text, &info)
}

// writeFile puts a file in its place at once, readable for its owner only: a
// reader finds all of it or nothing.
func writeFile(path string, text []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
