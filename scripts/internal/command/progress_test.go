// SPDX-License-Identifier: MPL-2.0

package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../../.."

// What runs for longer than two seconds says so, and the second time how long it will take.
func TestWithProgress(t *testing.T) {
	// A copy has its own memory of how long things take.
	scripts := filepath.Join(t.TempDir(), "scripts")
	require.NoError(t, os.Mkdir(scripts, 0o700))
	for _, file := range []string{"lib.sh", "with-progress.sh"} {
		text, err := os.ReadFile(filepath.Join(root, "scripts", file)) //nolint:gosec // of this repository
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(scripts, file), text, 0o700)) //nolint:gosec // a program
	}
	for _, want := range []string{
		`(?s)^=== some/work -x=1\n… some/work -x=1: 0:0[2-9], for the first time here\n.*=== some/work -x=1: done in 0:0[3-9]\n$`,
		`(?s)\n… some/work -x=1: 0:0[2-9] of about 0:0[3-9]\n`,
	} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(scripts, "with-progress.sh"), "some/work -x=1", "sleep", "3.5").CombinedOutput() //nolint:gosec // as above
		require.NoError(t, err)
		require.Regexp(t, want, string(out))
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(scripts, "with-progress.sh"), "failure", "false") //nolint:gosec // as above
	require.Error(t, cmd.Run())
	require.NoFileExists(t, filepath.Join(filepath.Dir(scripts), ".cache", "took", "failure"))
}

// Whatever takes long is run in that way, or reports its progress itself.
func TestLongTargetsShowProgress(t *testing.T) {
	for _, target := range []string{
		"unit", "fips", "acceptance", "cover", "mutants", "soak-race", "soak-explore", "soak-histories", "soak-storage", "soak-fuzz",
		"soak-chaos", "build", "simulator", "bench", "fleet", "lint", "vet", "deps-check", "integrations-check", "clients-check", "licences", "release",
	} {
		out, err := exec.CommandContext(t.Context(), "make", "-C", root, "-n", "--no-print-directory", target, `ARGS=-only "a 'text'"`).Output() //nolint:gosec // as above
		require.NoError(t, err, target)
		require.Contains(t, string(out), "scripts/with-progress.sh", target)
	}
}
