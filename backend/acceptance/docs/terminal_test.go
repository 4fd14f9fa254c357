// SPDX-License-Identifier: MPL-2.0

package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// commandBudget is for one command, and generous: some of them compile.
	commandBudget = 10 * time.Minute
	// lookBudget is how long a command that only looks is repeated.
	lookBudget = 75 * time.Second
	lookEvery  = 500 * time.Millisecond
)

// looks are the commands that change nothing, so that they can be repeated until they
// print what they should. register is none: a reader types it once.
var looks = regexp.MustCompile(`^(vault read (-\S+ )*mdi/status|vault list |mdi-simulator (calls|credentials)|ls |cat |grep )`)

// checkout copies what git knows of the repository to a new folder, as a clone has it,
// and what is about to be committed.
func checkout(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	list, err := cmd.Output()
	require.NoError(t, err)
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.Trim(string(list), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
	}
	return dir
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from) //nolint:gosec // of this repository
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode()) //nolint:gosec // a name that git knows, in a folder of this test
}

// environment is that of this process without other Vaults, without what a make that
// runs this test has to say to its children, and with the Vault to run.
func environment(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "vault.sh")) //nolint:gosec // of this repository
	cmd.Stderr = os.Stderr                                                              // building a Vault takes minutes, and says so
	vault, err := cmd.Output()
	require.NoError(t, err)
	env := []string{"VAULT_BIN=" + strings.TrimSpace(string(vault))}
	others := regexp.MustCompile("^(VAULT_|AZURE_|MAKE|MFLAGS)")
	for _, variable := range os.Environ() {
		if !others.MatchString(variable) {
			env = append(env, variable)
		}
	}
	// So that what is built in one checkout need not be compiled again for the next.
	return append(env, "GOFLAGS="+os.Getenv("GOFLAGS")+" -trimpath")
}

// group makes a command the leader of a process group, which ends with the test.
func group(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
}

// serve runs "make dev" in a checkout until the test ends, and returns the lines that
// it tells its user to type in another terminal.
func serve(t *testing.T, dir string, env []string) (exports []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "make", "dev")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, env, os.Stderr
	group(t, cmd)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it is no failure to be stopped
	})
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "export ") {
			exports = append(exports, text)
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			return exports
		}
	}
	require.Failf(t, "make dev ended by itself", "it said:\n%s", strings.Join(said, "\n"))
	return nil
}

// terminal is a shell that is typed into.
type terminal struct {
	dir, notes string
	in         io.Writer
	out        *bufio.Reader
	typed      int
}

// openTerminal starts a shell in a folder.
func openTerminal(t *testing.T, dir string, env []string) *terminal {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-o", "pipefail")
	cmd.Dir, cmd.Env = dir, env
	cmd.Stderr = os.Stderr
	group(t, cmd)
	// What the document has left running in the background ends with it.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return &terminal{dir: dir, notes: t.TempDir(), in: in, out: bufio.NewReader(out)}
}

// run types a command and returns what it prints and its exit code.
func (t *terminal) run(text string) (printed string, code int, err error) {
	t.typed++
	script := filepath.Join(t.notes, fmt.Sprintf("%d.sh", t.typed))
	output := filepath.Join(t.notes, fmt.Sprintf("%d.txt", t.typed))
	if err := os.WriteFile(script, []byte(text+"\n"), 0o600); err != nil {
		return "", 0, err
	}
	// Sourced, so that what a command exports stays.
	if _, err := fmt.Fprintf(t.in, "source %q </dev/null >%q 2>&1; echo $?\n", script, output); err != nil {
		return "", 0, err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := fmt.Fscanln(t.out, &code)
		ended <- err
	}()
	select {
	case err = <-ended:
	case <-time.After(commandBudget):
		err = fmt.Errorf("it has not ended after %s", commandBudget)
	}
	bytes, readErr := os.ReadFile(output) //nolint:gosec // of this test
	return string(bytes), code, errors.Join(err, readErr)
}

// walk runs the commands of a step.
func (t *terminal) walk(s step) error {
	_, fails := s.marks[markFails]
	for i, c := range s.commands {
		err := t.follow(c, fails && i == len(s.commands)-1)
		if lacks := s.marks[markUnless]; err != nil && lacks != "" && strings.Contains(err.Error(), lacks) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// try runs a command of a document once and tells what is not as the document says.
func (t *terminal) try(c command, fails bool) error {
	printed, code, err := t.run(c.text)
	switch {
	case err != nil:
	case fails && code == 0:
		err = errors.New("it succeeds, and should fail")
	case !fails && code != 0:
		err = fmt.Errorf("it fails with exit code %d", code)
	case !prints(c.want, printed):
		err = fmt.Errorf("it does not print what the document shows:\n%s", strings.Join(c.want, "\n"))
	}
	if err != nil {
		return fmt.Errorf("line %d: $ %s\n%w\nIt has printed:\n%s", c.line, c.text, err, printed)
	}
	return nil
}

// follow is try, again and again for a while if the command only looks.
func (t *terminal) follow(c command, fails bool) error {
	err := t.try(c, fails)
	for deadline := time.Now().Add(lookBudget); err != nil && looks.MatchString(c.text) && time.Now().Before(deadline); {
		time.Sleep(lookEvery)
		err = t.try(c, fails)
	}
	return err
}

// prints tells whether a text has the lines of a document: see the documentation of the
// package.
func prints(want []string, text string) bool {
	if len(want) == 0 {
		return true
	}
	var pattern strings.Builder
	for _, line := range want {
		if words := strings.Join(strings.Fields(line), " "); words == "…" {
			pattern.WriteString(`(?:.*\n)*?`)
		} else {
			pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(words), "…", ".*") + `\n`)
		}
	}
	var lines strings.Builder
	for line := range strings.Lines(text) {
		if words := strings.Join(strings.Fields(line), " "); words != "" {
			lines.WriteString(words + "\n")
		}
	}
	return regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(lines.String())
}

func TestPrints(t *testing.T) {
	require.True(t, prints(nil, "anything\n"))
	require.True(t, prints([]string{"a  b…", "…", "d"}, "a b2\n\nc\nc\nd\n"))
	require.True(t, prints([]string{"…", "d", "…"}, "d\n"))
	require.False(t, prints([]string{"a"}, "a\nb\n"))
	require.False(t, prints([]string{"a.c"}, "abc\n"))
	require.False(t, prints([]string{"refused"}, "registered\n"))
}
