// SPDX-License-Identifier: MPL-2.0

package check

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// root is that of the repository.
const root = "../../.."

var (
	action = regexp.MustCompile(`(?m)^[ -]*uses: *(.*)$`)
	// pinned is an action at a commit, with its version for people and for Dependabot: a tag
	// can be moved to other code.
	pinned = regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
)

func TestWorkflowsAreValid(t *testing.T) {
	own, err := filepath.Glob(root + "/.github/workflows/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, own)
	config := filepath.Join(t.TempDir(), "actionlint.yaml")
	require.NoError(t, os.WriteFile(config, []byte("self-hosted-runner:\n  labels: [sensor-rollout]\n"), 0o600))
	for _, file := range append(own, workflowFile) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var out bytes.Buffer
			linter, err := actionlint.NewLinter(&out, &actionlint.LinterOptions{ConfigFile: config, Color: actionlint.ColorOptionKindNever})
			require.NoError(t, err)
			problems, err := linter.LintFile(file, nil)
			require.NoError(t, err)
			require.Empty(t, problems, out.String())
			for _, uses := range action.FindAllStringSubmatch(readFile(t, file), -1) {
				require.Regexp(t, pinned, uses[1])
			}
		})
	}
}

// dependabot is the configuration of Dependabot, with the keys that are used here.
type dependabot struct {
	Version int
	Updates []struct {
		Ecosystem   string `yaml:"package-ecosystem"`
		Directory   string
		Directories []string
		Schedule    struct{ Interval string }
		Limit       *int `yaml:"open-pull-requests-limit"`
		Groups      map[string]struct{ Patterns []string }
	}
}

// TestDependabotLooksAtEverything compares Dependabot's folders with those that have
// dependencies.
func TestDependabotLooksAtEverything(t *testing.T) {
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, root+"/.github/dependabot.yml")))
	decoder.KnownFields(true)
	var config dependabot
	require.NoError(t, decoder.Decode(&config))
	require.Equal(t, 2, config.Version)
	looked := map[string][]string{}
	for _, u := range config.Updates {
		require.Equal(t, "weekly", u.Schedule.Interval)
		require.True(t, (u.Directory == "") != (u.Directories == nil), "one of directory and directories")
		folders := u.Directories
		if u.Directory != "" {
			folders = []string{u.Directory}
		}
		looked[u.Ecosystem] = append(looked[u.Ecosystem], folders...)
	}
	require.Len(t, looked, 3)
	require.Equal(t, []string{"/"}, looked["github-actions"])
	require.ElementsMatch(t, foldersWith(t, "go.mod"), looked["gomod"])
	require.ElementsMatch(t, foldersWith(t, "package.json"), looked["npm"])
}

// foldersWith returns the folders of the repository that have a file of that name.
func foldersWith(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".cache", ".git", "dist", "node_modules"}, entry.Name()):
			return fs.SkipDir // large, and not of the repository
		case entry.Name() == name:
			found = append(found, path.Join("/", path.Dir(file)))
		}
		return nil
	}))
	return found
}
