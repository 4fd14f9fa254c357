// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// mutant is a way to break the engine.
type mutant struct {
	what  string
	edits []edit
}

// edit replaces consecutive lines in a file.
type edit struct {
	file     string
	old, new []string
}

// parse reads the list of mutations.
func parse(list string) ([]mutant, error) {
	var mutants []mutant
	for n, line := range strings.Split(list, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if what, ok := strings.CutPrefix(line, "== "); ok {
			mutants = append(mutants, mutant{what: what})
			continue
		}
		if len(mutants) == 0 || !mutants[len(mutants)-1].add(line) {
			return nil, fmt.Errorf("line %d of the list makes no sense there: %q", n+1, line)
		}
	}
	for _, m := range mutants {
		incomplete := func(e edit) bool { return len(e.old) == 0 }
		if len(m.edits) == 0 || slices.ContainsFunc(m.edits, incomplete) {
			return nil, fmt.Errorf("%s: there is nothing to replace", m.what)
		}
	}
	return mutants, nil
}

// add adds a line of a mutation's block. It returns false if the line does not belong
// there.
func (m *mutant) add(line string) bool {
	if file, ok := strings.CutPrefix(line, "@ "); ok {
		m.edits = append(m.edits, edit{file: file})
		return true
	}
	if len(m.edits) == 0 {
		return false
	}
	e := &m.edits[len(m.edits)-1]
	switch {
	case line[0] == '-' && len(e.new) == 0:
		e.old = append(e.old, line[1:])
	case line[0] == '+':
		e.new = append(e.new, line[1:])
	default:
		return false
	}
	return true
}

// apply returns the text with the lines replaced, which must occur in it once.
func (e edit) apply(text string) (string, error) {
	lines := strings.Split(text, "\n")
	var places []int
	for at := range len(lines) - len(e.old) + 1 {
		if slices.EqualFunc(lines[at:at+len(e.old)], e.old, sameButIndentation) {
			places = append(places, at)
		}
	}
	if len(places) != 1 {
		return "", fmt.Errorf("the lines to replace are in %s %d times, not once: the list has to be adapted", e.file, len(places))
	}
	return strings.Join(slices.Replace(lines, places[0], places[0]+len(e.old), e.new...), "\n"), nil
}

func sameButIndentation(a, b string) bool {
	return strings.TrimSpace(a) == strings.TrimSpace(b)
}
