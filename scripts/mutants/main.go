// SPDX-License-Identifier: MPL-2.0

// Command mutants shows that the property test of the engine can fail: it breaks the
// engine in one way after another and requires TestHistories to find each.
//
//	mutants [-checks 400] [-only TEXT]
//
// Run it in the root of the repository. It changes nothing there: `go test -overlay` puts
// a mutated file in the place of the real one. It fails if a mutation is not found, cannot
// be applied, or does not compile.
//
// The list, mutants.txt, has a block for each mutation: a line "== " with a description;
// then for each edit a line "@ " with the file, lines to replace ("-"), and lines to put
// there ("+"). The lines to replace are consecutive and occur once in the file, with any
// indentation.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

//go:embed mutants.txt
var list string

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	checks := flags.Int("checks", 400, "`number` of histories in each of the test's worlds, if a tenth of them does not find the mutant")
	only := flags.String("only", "", "try only the mutations whose description contains this `text`")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	mutants, err := parse(list)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // otherwise the system cleans it up
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !strings.Contains(m.what, *only) })
	tried, missed, began := 0, 0, time.Now()
	for _, m := range mutants {
		start := time.Now()
		command.Progress("%s", position(tried, len(mutants), start.Sub(began)))
		reason, err := m.try(ctx, dir, *checks)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		tried++
		if reason == "" {
			missed++
			fmt.Printf("MISSED %5.1fs  %s\n", time.Since(start).Seconds(), m.what)
		} else {
			fmt.Printf("found  %5.1fs  %s\n%16s%s\n", time.Since(start).Seconds(), m.what, "", reason)
		}
	}
	fmt.Printf("%d of %d mutations were found\n", tried-missed, tried)
	if missed > 0 || tried == 0 {
		return errors.New("the property test does not find every mutation, or there was none to try")
	}
	return nil
}

// position says how far the work is, and how long the rest will take if it goes on like that.
func position(done, all int, took time.Duration) string {
	text := fmt.Sprintf("… mutation %d of %d", done+1, all)
	if done > 0 {
		text += fmt.Sprintf(", about %v to go", (took / time.Duration(done) * time.Duration(all-done)).Round(time.Second))
	}
	return text
}

// try builds the test with a mutation and runs it, first briefly. It returns what the
// test found, or "".
func (m mutant) try(ctx context.Context, dir string, checks int) (found string, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	test := filepath.Join(dir, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", test, "-overlay", overlay, "./backend") //nolint:gosec // our own arguments
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the mutated engine does not compile: %w\n%s", err, out)
	}
	for _, n := range []int{max(1, checks/10), checks} {
		if found, err = histories(ctx, test, n); found != "" || err != nil {
			break
		}
	}
	return found, err
}

// demand finds the broken promise in the test's output.
var demand = regexp.MustCompile(`(?m)\[rapid\] .*?: (after .*)$|Original traceback \((after .*)\):$`)

// histories runs the property test, and returns what it found.
func histories(ctx context.Context, test string, checks int) (found string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, test, "-test.run=^TestHistories$", fmt.Sprint("-rapid.checks=", checks), //nolint:gosec // our own arguments
		"-rapid.nofailfile", "-rapid.shrinktime=1ms")
	cmd.Dir = "backend"
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("the test took too long: %w", ctx.Err())
	case !strings.Contains(string(out), "--- FAIL: TestHistories"):
		return "", fmt.Errorf("the test did not finish: %w\n%s", err, out)
	}
	if match := demand.FindStringSubmatch(string(out)); match != nil {
		return match[1] + match[2], nil
	}
	return "", fmt.Errorf("the test failed for another reason:\n%s", out)
}

// overlay writes the mutated files, and returns the file that lists them for the go
// command.
func (m mutant) overlay(dir string) (string, error) {
	replace := map[string]string{} // mutated file by original
	for i, e := range m.edits {
		original, err := filepath.Abs(e.file)
		if err != nil {
			return "", err
		}
		source := cmp.Or(replace[original], original) // a second edit of a file
		text, err := os.ReadFile(source)              //nolint:gosec // a file of the repository
		if err != nil {
			return "", err
		}
		mutated, err := e.apply(string(text))
		if err != nil {
			return "", err
		}
		mutant := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(mutant, []byte(mutated), 0o600); err != nil { //nolint:gosec // in our own directory
			return "", err
		}
		replace[original] = mutant
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, content, 0o600)
}
