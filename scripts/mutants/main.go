// SPDX-License-Identifier: MPL-2.0

// Command mutants shows that the property test of the engine can fail: it breaks the
// engine in one way after the other and demands that TestHistories finds out.
//
//	mutants [-checks 100] [-only TEXT]
//
// It runs in the root of the repository and changes nothing there: a mutated file
// takes the place of the real one by `go test -overlay`. It fails if a mutation goes
// unnoticed, cannot be applied, or does not compile.
//
// The list, mutants.txt, has a block for each mutation: a line "== " with what it
// does; then for each edit a line "@ " with the file, and lines to be replaced ("-")
// and to be put there ("+"). The lines to be replaced stand next to each other in one
// place of the file; indentation does not matter for finding them.
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
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

//go:embed mutants.txt
var list string

func main() {
	checks := flag.Int("checks", 100, "histories in each of the test's worlds; a mutant that survives a tenth of them gets all")
	only := flag.String("only", "", "try only the mutations whose description contains this text")
	flag.Parse()
	if err := run(*checks, *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run tries out the mutations whose description contains only.
func run(checks int, only string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	mutants, err := parse(list)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system cleans it up otherwise
	tried, missed := 0, 0
	for _, m := range mutants {
		if !strings.Contains(m.what, only) {
			continue
		}
		start := time.Now()
		reason, err := m.try(ctx, dir, checks)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		tried++
		verdict := "found"
		if reason == "" {
			missed++
			verdict = "MISSED"
		}
		fmt.Printf("%-6s %5.1fs  %s\n", verdict, time.Since(start).Seconds(), m.what)
		if reason != "" {
			fmt.Printf("%16s%s\n", "", reason)
		}
	}
	fmt.Printf("%d of %d mutations were found\n", tried-missed, tried)
	if missed > 0 || tried == 0 {
		return errors.New("the property test does not notice every mutation, or there was none to try")
	}
	return nil
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

// demand finds, in the test's output, the promise that was not kept.
var demand = regexp.MustCompile(`(?m)\[rapid\] .*?: (after .*)$|Original traceback \((after .*)\):$`)

// histories runs the property test, and returns what it found.
func histories(ctx context.Context, test string, checks int) (found string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, test, "-test.run=^TestHistories$", fmt.Sprint("-rapid.checks=", checks), //nolint:gosec // our own arguments
		"-rapid.nofailfile", "-rapid.shrinktime=1ms")
	cmd.Dir = "backend"
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("the test was given up: %w", ctx.Err())
	case !strings.Contains(string(out), "--- FAIL: TestHistories"):
		return "", fmt.Errorf("the test did not come to an end: %w\n%s", err, out)
	}
	if match := demand.FindStringSubmatch(string(out)); match != nil {
		return match[1] + match[2], nil
	}
	return "", fmt.Errorf("the test failed for a reason of its own:\n%s", out)
}

// overlay writes the mutated files and returns the name of the file that tells the
// go command about them.
func (m mutant) overlay(dir string) (string, error) {
	replace := map[string]string{} // what stands in for which file
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
		standIn := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(standIn, []byte(mutated), 0o600); err != nil { //nolint:gosec // in our own directory
			return "", err
		}
		replace[original] = standIn
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, content, 0o600)
}
