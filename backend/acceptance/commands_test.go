// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

// commands are those that scripts have on top of testscript's own; the package's
// documentation describes them.
func commands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"vault":        program("vault"),
		simulatorName:  program(simulatorName),
		"eventually":   only(eventually),
		"within":       only(within),
		"rejected":     only(rejected),
		"field":        only(field),
		"let":          only(let),
		"read-at-once": only(readAtOnce),
		"keep-reading": only(keepReading),
		"stop-reading": only(stopReading),
		"needs":        only(needs),
		"start-tenant": only(startTenant),
		"start-proxy":  only(startProxy),
		"black-hole":   only(blackHole),
		"kill-plugin":  only(killPlugin),
		"id-tokens":    only(idTokens),

		"restart-vault": only(restartVault),
		"start-raft":    only(startRaft),
	}
}

// only makes a command that cannot be negated out of a function.
func only(do func(ts *testscript.TestScript, args []string) error) scriptCommand {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command cannot be negated")
		}
		ts.Check(do(ts, args))
	}
}

// program makes a command out of a program.
func program(name string) scriptCommand {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		line, err := parse(slices.Concat([]string{name}, args))
		ts.Check(err)
		line.fails = neg
		ts.Check(line.run(ts))
	}
}

// commandLine is a program with its arguments.
type commandLine struct {
	fails   bool // it has to
	argv    []string
	into    string         // file for the output, or ""
	pattern *regexp.Regexp // that the output must match, or nil
}

// parse understands [!] PROGRAM ARGS... [> FILE], or [| grep PATTERN] at the end.
func parse(words []string) (commandLine, error) {
	var line commandLine
	if len(words) > 0 && words[0] == "!" {
		line.fails, words = true, words[1:]
	}
	n := len(words)
	switch {
	case n > 2 && words[n-2] == ">":
		line.into, words = words[n-1], words[:n-2]
	case n > 3 && words[n-3] == "|" && words[n-2] == "grep":
		pattern, err := regexp.Compile("(?m)" + words[n-1])
		if err != nil {
			return line, err
		}
		line.pattern, words = pattern, words[:n-3]
	}
	line.argv = words
	if len(words) == 0 || words[0] != "vault" && words[0] != simulatorName {
		return line, fmt.Errorf("expected a command line of vault or %s", simulatorName)
	}
	return line, nil
}

// run runs the command line once. It returns an error unless all is as expected.
func (l commandLine) run(ts *testscript.TestScript) error {
	var err error
	if l.into == "" {
		err = ts.Exec(l.argv[0], l.argv[1:]...)
	} else {
		err = ts.Exec("sh", slices.Concat([]string{"-c", `exec "$@" >"$0"`, ts.MkAbs(l.into)}, l.argv)...)
	}
	scenarioOf(ts).shown(l.secretless(ts))
	if err == nil && l.pattern != nil && !l.pattern.MatchString(ts.ReadFile("stdout")) {
		err = fmt.Errorf("the output does not match %s", l.pattern)
	}
	switch {
	case l.fails && err == nil:
		return errors.New("it succeeds, and should fail")
	case l.fails:
		return nil
	default:
		return err
	}
}

// secretless returns what no command line may show: its output, unless that went into a
// file, as that of a key has to; but what the engine says of itself counts there as well.
func (l commandLine) secretless(ts *testscript.TestScript) string {
	text := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	if l.into != "" && (slices.Contains(l.argv, "mdi/config") || slices.Contains(l.argv, "mdi/status")) {
		text += ts.ReadFile(l.into)
	}
	return text
}

// timed parses DURATION COMMAND.
func timed(args []string) (time.Duration, commandLine, error) {
	if len(args) == 0 {
		return 0, commandLine{}, errors.New("a duration is needed")
	}
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return 0, commandLine{}, err
	}
	line, err := parse(args[1:])
	return limit, line, err
}

func eventually(ts *testscript.TestScript, args []string) error {
	limit, line, err := timed(args)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		if err = line.run(ts); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

func within(ts *testscript.TestScript, args []string) error {
	limit, line, err := timed(args)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := line.run(ts); err != nil {
		return err
	}
	took := time.Since(began).Round(10 * time.Millisecond)
	if took > limit {
		return fmt.Errorf("it took %s", took)
	}
	ts.Logf("[took %s]", took)
	return nil
}

func rejected(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: rejected FIELD COMMAND")
	}
	line, err := parse(args[1:])
	if err != nil {
		return err
	}
	line.fails = true
	if err := line.run(ts); err != nil {
		return err
	}
	answer := ts.ReadFile("stderr")
	if !strings.Contains(answer, "Code: 400.") {
		return errors.New("the answer is not a 400")
	}
	_, message, _ := strings.Cut(answer, "\n* ")
	if !strings.Contains(message, args[0]) {
		return fmt.Errorf("the answer does not name %s", args[0])
	}
	return nil
}

// field writes a string without a newline, as a key in a file has to be.
func field(ts *testscript.TestScript, args []string) error {
	if len(args) != 4 || args[2] != ">" {
		return errors.New("usage: field FILE PATH > FILE")
	}
	value, err := lookup(ts, args[0], args[1])
	if err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(args[3]), []byte(value), 0o600)
}

func let(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: let NAME FILE PATH")
	}
	value, err := lookup(ts, args[1], args[2])
	if err != nil {
		return err
	}
	ts.Setenv(args[0], value)
	return nil
}

// lookup returns the string at a path of a JSON file, such as data.ttl.
func lookup(ts *testscript.TestScript, file, path string) (string, error) {
	var value any
	if err := json.Unmarshal([]byte(ts.ReadFile(file)), &value); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	for name := range strings.SplitSeq(path, ".") {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	text, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("%s has no string at %s", file, path)
	}
	return text, nil
}

func startTenant(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: start-tenant NAME")
	}
	return scenarioOf(ts).startTenant(args[0])
}

// killPlugin kills the plugin, which hears no warning. Vault may send what the plugin was
// working on to the next process (builtin/plugin/v5/backend.go), or answer with an error:
// that is a race inside Vault. So the clients have to be gone, unless the script names the
// moment, and then it has to accept both.
func killPlugin(ts *testscript.TestScript, args []string) error {
	sc := scenarioOf(ts)
	plugins, err := sc.vault.Children()
	if err != nil {
		return err
	}
	if len(plugins) == 0 {
		return errors.New("no plugin is running")
	}
	switch {
	case len(args) > 0:
		if err := awaitAnswers(sc.tenants[0], args[0]); err != nil {
			return err
		}
	case len(ts.BackgroundCmds()) > 0:
		return errors.New("a client is still waiting: end it with kill -KILL and wait")
	}
	testbed.Kill(plugins...)
	return nil
}

// awaitAnswers returns at the moment when a tenant has answered n regenerations.
func awaitAnswers(t *tenant, n string) error {
	answered, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	_, err = t.client.Wait(context.Background(), graphtest.WaitRequest{
		Operation: graphtest.Regenerate,
		Calls:     graphtest.Calls{Answered: answered},
		Timeout:   "20s",
	})
	return err
}

func scenarioOf(ts *testscript.TestScript) *scenario {
	return ts.Value(scenarioKey{}).(*scenario)
}
