// SPDX-License-Identifier: MPL-2.0

// Package field declares the fields that clients write.
//
// A field is declared once, as a [Spec]: name, type, default, check, description,
// whether it is secret, and whether changing it leads the credential elsewhere. The
// schema of the path, the write, what a read returns and the API reference all come from
// that table. A write that cannot be carried out is an [Error], which names the field
// and what is allowed, and never repeats the value.
package field

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/framework"
)

// textArea is how Vault's user interface edits a text of several lines.
const textArea = "textarea"

// Error is a request that the client has to change first: the engine answers it with 400.
type Error struct {
	Field   string
	Problem string // what is wrong and what is allowed, never the value
}

func (e *Error) Error() string { return e.Field + ": " + e.Problem }

// Spec declares one field and says where its value is.
type Spec struct {
	Name        string
	Title       string              // for user interfaces; "" for a field that is only read
	Group       string              // likewise; "" for none
	Type        framework.FieldType // of a field without At
	Default     any                 // nil: none. The first write sets it if it leaves the field out
	Description string
	Allowed     []string // values; nil: not a choice
	Multiline   bool     // a PEM text
	Secret      bool     // never read back
	Optional    bool     // a read lacks it if it is zero, or unset if it can be
	Required    bool     // a text that must not be missing after a write, see Missing
	Query       bool     // of a read, in the query of its address
	// For is the type of credential that the field belongs to; "" for none in particular.
	For string
	// Redirects says that the field decides where a credential is sent, so that changing
	// it takes the credential in the same write.
	Redirects bool

	// At is where the value is kept: a *string, a *bool, a *time.Duration or, for a duration
	// that a null unsets, a **time.Duration. It is nil for a field that is only read or not
	// stored, and for one that takes more than its own value to check: its owner does.
	At any
	// Check returns what to store of a text. Its error lacks the field's name.
	Check func(text string) (string, error)
	// Shortest bounds a duration, which can also be 0 if that means none.
	Shortest time.Duration
	OrNone   bool
	// Get returns what a read shows, if that is not just the value; nil leaves the field out.
	Get func() any
}

// briefly writes a duration as people do: 1h and not 1h0m0s.
var briefly = strings.NewReplacer("h0m0s", "h", "m0s", "m")

// Schema returns the fields of a write. Descriptions name the allowed values and the
// default, which path-help does not show otherwise.
func Schema(specs []Spec) map[string]*framework.FieldSchema {
	schema := map[string]*framework.FieldSchema{}
	for _, s := range specs {
		f := &framework.FieldSchema{Type: s.kind(), Default: s.Default, Description: s.Description, Query: s.Query}
		attributes := framework.DisplayAttributes{Name: s.Title, Group: s.Group, Sensitive: s.Secret}
		if s.Multiline {
			attributes.EditType = textArea
		}
		if attributes != (framework.DisplayAttributes{}) {
			f.DisplayAttrs = &attributes
		}
		if len(s.Allowed) > 0 {
			for _, value := range s.Allowed {
				f.AllowedValues = append(f.AllowedValues, value)
			}
			f.Description += " One of " + strings.Join(s.Allowed, ", ") + "."
		}
		if d, isDuration := s.Default.(time.Duration); isDuration {
			f.Default = int(d.Seconds())
		}
		if s.Default != nil {
			f.Description += " Default: " + briefly.Replace(fmt.Sprint(s.Default)) + "."
		}
		schema[s.Name] = f
	}
	return schema
}

// ReadSchema returns the fields of a read.
func ReadSchema(specs []Spec) map[string]*framework.FieldSchema {
	shown := slices.DeleteFunc(slices.Clone(specs), func(s Spec) bool { return s.Get == nil && (s.At == nil || s.Secret) })
	schema := Schema(shown)
	for _, s := range shown {
		schema[s.Name].Required = !s.Optional
	}
	return schema
}

// kind returns the type of the field, which is that of its value where one is kept.
func (s Spec) kind() framework.FieldType {
	switch s.At.(type) {
	case *string:
		return framework.TypeString
	case *bool:
		return framework.TypeBool
	case *time.Duration, **time.Duration:
		return framework.TypeDurationSecond
	}
	return s.Type
}

// Clean returns what a request means by its values: text without white space around it,
// and for an empty text null, which asks for the default. What no field can hold is an
// [*Error], as is what the framework cannot convert, since its error would quote the value.
// Fields that the schema lacks are left out, and unknown names the first of them.
func Clean(schema map[string]*framework.FieldSchema, data map[string]any) (cleaned map[string]any, unknown string, err error) {
	d := &framework.FieldData{Raw: map[string]any{}, Schema: schema}
	var strangers []string
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if schema[name] != nil {
			if problem := clean(d, name, data[name]); problem != "" && err == nil {
				err = &Error{name, problem}
			}
		} else if len(strangers) < maxStrangers {
			strangers = append(strangers, stranger(schema, name))
		}
	}
	return d.Raw, strings.Join(strangers, "; "), err
}

// maxStrangers is how many unknown fields are named.
const maxStrangers = 10

// plainName matches what may have been meant as the name of a field. Names have no digits,
// most secrets do, and a secret is taken for a name where its own is missing.
var plainName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_-]{1,40}$`) })

// stranger says that a field is not known, and which ones may be meant: those whose names
// contain its name. Without any, it is the one that has most pairs of adjacent letters in
// common with it, if they are half of all at least.
func stranger(schema map[string]*framework.FieldSchema, written string) string {
	if !plainName().MatchString(written) {
		return "an unknown field, which is not named since it may be a secret"
	}
	name, hint, most := strings.ToLower(written), "", 0.5
	var longer []string
	for _, known := range slices.Sorted(maps.Keys(schema)) {
		if len(name) > 2 && strings.Contains(known, name) {
			longer = append(longer, known)
		}
		common := 0
		for _, names := range [][2]string{{name, known}, {known, name}} {
			for i := range len(names[0]) - 1 {
				if strings.Contains(names[1], names[0][i:i+2]) {
					common++
				}
			}
		}
		if share := float64(common) / float64(len(name)+len(known)-2); share >= most {
			hint, most = known, share
		}
	}
	if hint = cmp.Or(strings.Join(longer, " or "), hint); hint != "" {
		hint = " (did you mean " + hint + "?)"
	}
	return "unknown field " + written + hint
}

// mistyped says what the values of a type are.
var mistyped = map[framework.FieldType]string{
	framework.TypeString:         "must be given once, as text",
	framework.TypeBool:           "must be true or false",
	framework.TypeInt:            "must be a whole number",
	framework.TypeDurationSecond: "must be a duration of whole seconds such as 90s, 30m or 24h, not negative and not beyond 8784h",
}

// maxText is far beyond the longest value, a chain of certificates, and bounds the work on one.
const maxText = 256 << 10

// clean sets a field of d to what a value means, and returns what is wrong with it.
func clean(d *framework.FieldData, name string, value any) (problem string) {
	s := d.Schema[name]
	text, isText := value.(string)
	if len(text) > maxText {
		return fmt.Sprintf("is longer than %d KiB, the limit", maxText>>10)
	}
	if text = trim(text); isText {
		value = Text(text)
	}
	d.Raw[name] = value
	_, _, err := d.GetOkErr(name)
	exact, _ := time.ParseDuration(text) // what is none is a number of seconds or days
	number, _ := value.(float64)         // of JSON, as a plugin gets it; the framework cuts off a fraction
	if s.Type == framework.TypeString && value != nil && !isText || s.Type == framework.TypeDurationSecond && exact%time.Second != 0 || number != math.Trunc(number) || err != nil {
		problem = mistyped[s.Type]
	}
	return cmp.Or(badText(s.DisplayAttrs, text), problem)
}

// badCharacters are the kinds of characters that no field of one line can hold.
var badCharacters = []struct {
	kind string
	is   func(rune) bool
}{
	{"a NUL character", func(r rune) bool { return r == 0 }},
	{"a byte that is not UTF-8", func(r rune) bool { return r == utf8.RuneError }},
	{"a line break", func(r rune) bool { return r == '\n' || r == '\r' }},
	{"a control character", unicode.IsControl},
	{"an unusual space", func(r rune) bool { return r != ' ' && unicode.IsSpace(r) }},
	{"an invisible character", func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.In(r, unicode.Mn, unicode.Other_Default_Ignorable_Code_Point)
	}},
}

// filePath matches the path of a file, and no client secret: one that contains slashes ends
// in an equals sign or has characters that names of files lack.
var filePath = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^(file:.*|@?(~|\.\.?|[a-z]:)[/\\][^=]*|\\\\[^=]*|[@/][\w.~ -]*([/\\][\w.~ -]+)+|[^=]+\.(pem|crt|cer|der|key|pfx|p12|txt))$`)
})

// trim removes what surrounds a text: white space and a byte-order mark.
func trim(text string) string {
	return strings.TrimFunc(text, func(r rune) bool { return r == '\ufeff' || unicode.IsSpace(r) })
}

// Line returns a text of one line without what surrounds it. Its error lacks the name of
// what contains the text.
func Line(text string) (string, error) {
	text = trim(text)
	if problem := badText(nil, text); problem != "" {
		return "", errors.New(problem)
	}
	return text, nil
}

const sendContents = "put @ before it, and the vault command sends the contents; other clients have to read the file"

// badText returns why no field can hold a text, or "". What stands between the blocks of a
// PEM file may be anything.
func badText(display *framework.DisplayAttributes, text string) string {
	display = cmp.Or(display, &framework.DisplayAttributes{})
	multiline := display.EditType == textArea
	switch {
	case 4*strings.Count(text, "\x00") > utf8.RuneCountInString(text):
		return "is text in UTF-16, as PowerShell and editors of Windows write it: save it as UTF-8 and write it again"
	case multiline && text != "" && !strings.ContainsAny(text, "\r\n") && !strings.Contains(text, "-----BEGIN"):
		return "is not PEM: if it is the path of a file, " + sendContents
	case !multiline && display.Sensitive && filePath().MatchString(text):
		return "is the path of a file and not what is in it: " + sendContents
	}
	for _, c := range badCharacters {
		if !multiline && strings.ContainsFunc(text, c.is) {
			return "contains " + c.kind + ": save it as plain text in UTF-8 and write it again"
		}
	}
	return ""
}

// Read returns what a read shows.
func Read(specs []Spec) map[string]any {
	data := map[string]any{}
	for _, s := range specs {
		if value := s.Shown(); value != nil {
			data[s.Name] = value
		}
	}
	return data
}

// Shown returns the field as a read shows it, nil if it is left out.
func (s Spec) Shown() any {
	if s.Get != nil {
		return s.Get()
	}
	kept := reflect.Indirect(reflect.ValueOf(s.At))
	value := reflect.Indirect(kept) // of a duration that can be unset
	if s.Secret || !value.IsValid() || s.Optional && kept.IsZero() {
		return nil
	}
	if d, isDuration := value.Interface().(time.Duration); isDuration {
		return int64(d.Seconds())
	}
	return value.Interface()
}

// Write sets the fields that d names: a JSON null asks for the default. A first write also
// sets those that have a default and that d leaves out. Its error is an [*Error], after
// which what has been set is of no use.
func Write(specs []Spec, d *framework.FieldData, first bool) error {
	for _, s := range specs {
		value, given := Value(d, s.Name)
		if s.At != nil && (given || first && s.Default != nil) {
			if err := s.set(value, d.Raw[s.Name] == nil); err != nil {
				return &Error{s.Name, err.Error()}
			}
		}
	}
	return nil
}

// Missing returns an [*Error] if a required text is missing.
func Missing(specs []Spec) error {
	for _, s := range specs {
		if text, _ := s.At.(*string); s.Required && *text == "" {
			return &Error{s.Name, "is required"}
		}
	}
	return nil
}

// set sets the value of the field, which a duration that can be unset has not if it isNull.
func (s Spec) set(value any, isNull bool) (err error) {
	switch at := s.At.(type) {
	case *string:
		*at = value.(string)
		if s.Check != nil {
			*at, err = s.Check(*at)
		}
		if err == nil && s.Allowed != nil && !slices.Contains(s.Allowed, value.(string)) {
			err = errors.New("must be one of " + strings.Join(s.Allowed, ", "))
		}
	case *bool:
		*at = value.(bool)
	case *time.Duration:
		*at, err = s.duration(value.(int))
	case **time.Duration:
		if *at = nil; !isNull {
			*at = new(time.Duration)
			**at, err = s.duration(value.(int))
		}
	}
	return err
}

// longest is far beyond the life of a key that is needed for one installation. A longer
// duration is a mistake in the unit.
const longest = 366 * 24 * time.Hour

func (s Spec) duration(seconds int) (time.Duration, error) {
	d := time.Duration(seconds) * time.Second
	if d >= s.Shortest && seconds <= int(longest.Seconds()) || s.OrNone && seconds == 0 {
		return d, nil
	}
	orNone := ""
	if s.OrNone {
		orNone = ", or 0 for none"
	}
	return 0, fmt.Errorf("must be between %s and %dh%s", s.Shortest, int(longest.Hours()), orNone)
}

// Value returns the value of a field, which for a JSON null is the default, and whether
// the request names the field.
func Value(d *framework.FieldData, name string) (value any, given bool) {
	raw, given := d.Raw[name]
	if given && raw == nil {
		return d.GetDefaultOrZero(name), true
	}
	return d.Get(name), given
}

// Always declares a field that is only read.
func Always(name string, kind framework.FieldType, description string, value any) Spec {
	return Spec{Name: name, Type: kind, Description: description, Get: func() any { return value }}
}

// IfKnown declares a field that is only read, and is left out if its value is nil.
func IfKnown(name string, kind framework.FieldType, description string, value any) Spec {
	return Spec{Name: name, Type: kind, Description: description, Optional: true, Get: func() any { return value }}
}

// Time is the value of a time as it is read, nil if it is zero.
func Time(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

// Text is the value of a text that may be missing, nil if it is "".
func Text(s string) any {
	if s == "" {
		return nil
	}
	return s
}
