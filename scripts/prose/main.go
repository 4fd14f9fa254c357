// SPDX-License-Identifier: MPL-2.0

// Command prose counts what makes prose hard to read: sentences of more than 30 words, and
// phrases for which there is a plainer one. It reads Markdown and the comments of Go files,
// prints the worst, and fails if there is a phrase, or more long sentences than -max.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
)

// longest is how many words a sentence may have.
const longest = 30

// plainer are phrases, and what to write instead.
var plainer = map[string]string{
	"tells whether": "reports whether",
	"tell whether":  "report whether",
	"by itself":     "automatically",
	"by themselves": "automatically",
	"somebody":      "the actor",
	"someone":       "the actor",
	"any more":      "no longer",
	"stands in":     "is in, or replaces",
	"stands for":    "is, or means",
}

// finding is a sentence that should be another.
type finding struct {
	place, text string
	words       int
	phrase      string
}

func main() {
	most := flag.Int("max", 0, "how many long sentences there may be")
	show := flag.Int("show", 10, "how many of them are printed")
	flag.Parse()
	findings, err := check(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(1)
	}
	if !report(findings, *most, *show) {
		os.Exit(1)
	}
}

// report prints the findings, and reports whether they are few enough.
func report(findings []finding, most, show int) bool {
	phrases, long := 0, 0
	for _, f := range findings {
		if f.phrase != "" {
			phrases++
			fmt.Printf("%s: %q: write %s\n", f.place, f.phrase, plainer[f.phrase])
		}
	}
	for _, f := range findings {
		if f.phrase != "" {
			continue
		}
		if long++; long <= show {
			fmt.Printf("%s: %d words: %s\n", f.place, f.words, f.text)
		}
	}
	fmt.Printf("prose: %d sentences of more than %d words (at most %d), %d phrases to replace\n", long, longest, most, phrases)
	return long <= most && phrases == 0
}

// check returns the findings in files, the longest sentences first.
func check(files []string) ([]finding, error) {
	var findings []finding
	for _, name := range files {
		text, err := os.ReadFile(name) //nolint:gosec // the caller's
		if err != nil {
			return nil, err
		}
		paragraphs := markdown(string(text))
		if strings.HasSuffix(name, ".go") {
			if paragraphs, err = comments(name, text); err != nil {
				return nil, err
			}
		}
		for _, p := range paragraphs {
			findings = append(findings, p.findings(name)...)
		}
	}
	slices.SortStableFunc(findings, func(a, b finding) int { return cmp.Compare(b.words, a.words) })
	return findings, nil
}

// paragraph is text that is read at once.
type paragraph struct {
	line int // its first
	text string
}

var (
	code     = regexp.MustCompile("`[^`]*`")
	link     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	ends     = regexp.MustCompile(`[.!?:;]+\s`) // of sentences, and not a full stop within a version's number
	newItem  = regexp.MustCompile(`^(\s*([-*]|\d+\.)\s|#+\s|\||<!--|>)`)
	itemMark = regexp.MustCompile(`^\s*([-*]|\d+\.|#+)\s+`)
)

func (p paragraph) findings(name string) []finding {
	place := fmt.Sprintf("%s:%d", name, p.line)
	text := link.ReplaceAllString(code.ReplaceAllString(p.text, "CODE"), "$1")
	var found []finding
	for phrase := range plainer {
		if regexp.MustCompile(`(?i)\b` + phrase + `\b`).MatchString(text) {
			found = append(found, finding{place: place, phrase: phrase})
		}
	}
	// What follows a colon or a semicolon is read anew.
	for _, one := range ends.Split(text, -1) {
		if words := len(strings.Fields(one)); words > longest {
			found = append(found, finding{place: place, text: one, words: words})
		}
	}
	return found
}

// markdown returns the prose of a page: paragraphs, items of lists and cells of tables.
func markdown(page string) []paragraph {
	var all []paragraph
	var p paragraph
	flush := func() {
		if p.text != "" {
			all = append(all, p)
		}
		p = paragraph{}
	}
	fenced, comment := false, false
	for i, line := range strings.Split(page, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "```"):
			flush()
			fenced = !fenced
			continue
		case fenced:
			continue
		case strings.HasPrefix(trimmed, "<!--"):
			comment = true
		}
		if comment {
			flush()
			comment = !strings.Contains(trimmed, "-->")
			continue
		}
		if trimmed == "" || newItem.MatchString(line) {
			flush()
		}
		if strings.HasPrefix(trimmed, "|") {
			for cell := range strings.SplitSeq(strings.Trim(trimmed, "|"), " | ") {
				all = append(all, paragraph{i + 1, strings.TrimSpace(cell)})
			}
			continue
		}
		if trimmed == "" {
			continue
		}
		if p.text == "" {
			p.line = i + 1
		}
		p.text = strings.TrimSpace(p.text + " " + strings.TrimSpace(itemMark.ReplaceAllString(line, "")))
	}
	flush()
	return all
}

// comments returns the paragraphs of the comments of a Go file.
func comments(name string, text []byte) ([]paragraph, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, bytes.NewReader(text), parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var all []paragraph
	for _, group := range file.Comments {
		first := files.Position(group.Pos()).Line
		for _, p := range markdown(prose(group.Text())) {
			all = append(all, paragraph{first + p.line - 1, p.text})
		}
	}
	return all, nil
}

// prose leaves out the indented lines of a comment, which are code or a picture.
func prose(comment string) string {
	lines := strings.Split(comment, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "   ") {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}
