// SPDX-License-Identifier: MPL-2.0

package docs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// table is one of Markdown, the heading first.
type table [][]string

func (rows *table) add(parameters []parameter) {
	for _, p := range parameters {
		if p.Name != "list" { // Vault's own way to say LIST
			*rows = append(*rows, []string{code(p.Name), p.In, p.Schema.kind(), p.Description})
		}
	}
}

func (rows table) String() string {
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	return b.String()
}

// tables are those of requests and responses. Operations with the same fields share
// one.
type tables []*body

type body struct {
	methods []string
	verb    string // takes, answers
	fields  map[string]field
	request bool
}

func (all *tables) add(method, verb string, fields map[string]field, request bool) {
	for _, b := range *all {
		if b.request == request && maps.EqualFunc(b.fields, fields, field.equal) {
			b.methods = append(b.methods, code(method))
			return
		}
	}
	*all = append(*all, &body{[]string{code(method)}, verb, fields, request})
}

func (all tables) render() []string {
	var parts []string
	for _, b := range all {
		rest, isPart := all.without(b)
		switch {
		case isPart && len(rest) == 0:
			parts = append(parts, fmt.Sprintf("%s %s the same fields.\n", list(b.methods), b.verb))
		case isPart:
			parts = append(parts, fmt.Sprintf("%s %s the same fields but %s.\n", list(b.methods), b.verb, list(rest)))
		case len(b.fields) > 0:
			parts = append(parts, fmt.Sprintf("%s %s:\n\n%s", list(b.methods), plural(b.verb, b.methods), b.table()))
		}
	}
	return parts
}

// without tells whether a response has only fields of a request, and which ones of the
// request it lacks.
func (all tables) without(b *body) (rest []string, isPart bool) {
	for _, other := range all {
		if b.request || !other.request {
			continue
		}
		rest = nil
		for _, name := range slices.Sorted(maps.Keys(other.fields)) {
			if _, has := b.fields[name]; !has {
				rest = append(rest, code(name))
			}
		}
		contained := len(rest) == len(other.fields)-len(b.fields)
		for name, f := range b.fields {
			contained = contained && other.fields[name].equal(f)
		}
		if contained {
			return rest, true
		}
	}
	return nil, false
}

func (b *body) table() table {
	rows := table{{"field", "type", "default", "meaning"}}
	if !b.request {
		rows = table{{"field", "type", "meaning"}}
	}
	for _, name := range slices.Sorted(maps.Keys(b.fields)) {
		f := b.fields[name]
		row := []string{code(name), f.kind(), f.Description}
		if b.request {
			row = []string{code(name), f.kind(), f.standard(), f.meaning()}
		}
		rows = append(rows, row)
	}
	return rows
}

func (f field) equal(other field) bool {
	return f.Description == other.Description && f.kind() == other.kind()
}

// kind is the type as people call it.
func (f field) kind() string {
	switch name := cmp.Or(f.Format, f.Type); name {
	case "date-time":
		return "time"
	case "array":
		return "list"
	default:
		return name
	}
}

func (f field) standard() string {
	switch value := f.Default.(type) {
	case nil:
		return ""
	case float64:
		if f.Format == "duration" && value != 0 {
			return code(brief(time.Duration(value) * time.Second))
		}
		return code(fmt.Sprint(value))
	default:
		return code(fmt.Sprint(value))
	}
}

// brief writes a duration as people do, without what is 0.
func brief(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if trimmed := strings.TrimSuffix(text, zero); trimmed != text && strings.ContainsAny(trimmed[len(trimmed)-1:], "hm") {
			text = trimmed
		}
	}
	return text
}

// meaning is the description without the default, which has a column of its own.
func (f field) meaning() string {
	return strings.TrimSuffix(f.Description, " Default: "+strings.Trim(f.standard(), "`")+".")
}

func code(text string) string { return "`" + text + "`" }

func list(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

func plural(verb string, subjects []string) string {
	if len(subjects) > 1 {
		return strings.TrimSuffix(verb, "s")
	}
	return verb
}
