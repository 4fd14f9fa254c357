// SPDX-License-Identifier: MPL-2.0

package check

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// missing has, for each test that could not run, what this machine lacks.
var missing sync.Map

// TestMain says at the end which tests have not run, and why: go test names no skipped test
// unless it is asked to.
func TestMain(m *testing.M) {
	code := m.Run()
	lines := map[string]bool{}
	missing.Range(func(test, what any) bool {
		lines[fmt.Sprintf("SKIPPED %s: %s", test, what)] = true
		return true
	})
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		fmt.Println(line)
	}
	os.Exit(code)
}

// lacks skips a test that needs something that this machine does not have.
func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	missing.Store(t.Name(), what)
	t.Skip(what)
}

// need skips a test unless the program of a package of Debian is on PATH.
func need(t *testing.T, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		lacks(t, "there is no %s; on Debian: apt-get install %s", program, debian)
	}
}
