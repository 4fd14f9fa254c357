// SPDX-License-Identifier: MPL-2.0

package field_test

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/field"
)

// house has fields of each kind.
type house struct {
	Name   string
	Rest   time.Duration
	Colour string
	Depth  int
}

func (h *house) specs() []field.Spec {
	return []field.Spec{
		{
			Name: "name", Title: "Name", Description: "What it is called.", Redirects: true, Multiline: true,
			At: &h.Name,
			Check: func(text string) (string, error) {
				if text == "" {
					return "", errors.New("must not be empty")
				}
				return strings.ToLower(text), nil
			},
		},
		{
			Name: "rest", Title: "Rest", Group: "Time", Default: 90 * time.Minute, Description: "How long it is quiet.", Optional: true,
			At: &h.Rest, Shortest: time.Minute, OrNone: true,
		},
		{
			Name: "colour", Default: "white", Allowed: []string{"white", "red"}, Description: "Its colour.", Secret: true,
			At: &h.Colour,
		},
		{Name: "check", Type: framework.TypeBool, Default: true, Description: "Not stored."},
		{
			Name: "depth", Title: "Depth", Type: framework.TypeInt, Description: "Of the cellar.",
			Get: func() any { return h.Depth },
		},
		{Name: "vault", Type: framework.TypeString, Secret: true, Description: "In the cellar."},
	}
}

func specs() []field.Spec { return new(house).specs() }

func data(fields map[string]any) *framework.FieldData {
	return &framework.FieldData{Raw: fields, Schema: field.Schema(specs())}
}

func TestSchema(t *testing.T) {
	schema := field.Schema(specs())
	require.Len(t, schema, 6)
	require.Equal(t, &framework.FieldSchema{
		Type: framework.TypeString, Description: "What it is called.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Name", EditType: "textarea"},
	}, schema["name"])
	require.Equal(t, &framework.FieldSchema{
		Type: framework.TypeDurationSecond, Default: 5400, Description: "How long it is quiet. Default: 1h30m.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Rest", Group: "Time"},
	}, schema["rest"])
	require.Equal(t, &framework.FieldSchema{
		Type: framework.TypeString, Default: "white", AllowedValues: []any{"white", "red"},
		Description:  "Its colour. One of white, red. Default: white.",
		DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
	}, schema["colour"])
	require.Equal(t, "Depth", schema["depth"].DisplayAttrs.Name)
	require.True(t, schema["vault"].DisplayAttrs.Sensitive)
}

// A read shows what is stored and not secret, and lacks only what is optional.
func TestReadSchemaAndRead(t *testing.T) {
	required := map[string]bool{}
	for name, s := range field.ReadSchema(specs()) {
		required[name] = s.Required
	}
	require.Equal(t, map[string]bool{"name": true, "rest": false, "depth": true}, required)
	h := house{Name: "x", Colour: "red", Depth: 3}
	require.Equal(t, map[string]any{"name": "x", "depth": 3}, field.Read(h.specs()))
	h.Rest = time.Minute
	require.Equal(t, map[string]any{"name": "x", "depth": 3, "rest": int64(60)}, field.Read(h.specs()))
}

func TestClean(t *testing.T) {
	schema := field.Schema(specs())
	cleaned, unknown, err := field.Clean(schema, map[string]any{"name": "\ufeff -----BEGIN\r\n", "rest": " ", "colour": nil, "colur": "red", "Depht": 3, "shape": 1})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"name": "-----BEGIN", "rest": nil, "colour": nil}, cleaned)
	require.Equal(t, "unknown field Depht (did you mean depth?); unknown field colur (did you mean colour?); unknown field shape", unknown)

	for name, says := range map[string]string{
		"olo": "unknown field olo (did you mean colour?)", "T": "unknown field T", "dept": "unknown field dept (did you mean depth?)",
		"aul":                   "unknown field aul (did you mean default_vault or vault?)",
		"":                      "an unknown field, which is not named since it may be a secret",
		"abcDEF123":             "an unknown field, which is not named since it may be a secret",
		strings.Repeat("x", 41): "an unknown field, which is not named since it may be a secret",
	} {
		two := field.Schema(specs())
		two["default_vault"] = two["vault"]
		_, unknown, err := field.Clean(two, map[string]any{name: "x"})
		require.NoError(t, err)
		require.Equal(t, says, unknown)
	}
	many := map[string]any{}
	for n := range 100_000 {
		many["x"+strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j").Replace(strconv.Itoa(n))] = n
	}
	_, unknown, err = field.Clean(schema, many)
	require.NoError(t, err)
	require.Equal(t, 10, strings.Count(unknown, "unknown field"))

	for name, c := range map[string]struct {
		field string
		value any
		says  string // "": nothing
	}{
		"several lines":       {"name", "-----BEGIN\r\nb\tc \u200b", ""},
		"UTF-16":              {"name", "\ufffd\ufffda\x00b\x00", "UTF-16"},
		"one NUL":             {"colour", "red and white\x00and red", "a NUL character"},
		"two lines":           {"vault", "a\nb", "a line break"},
		"the longest":         {"colour", strings.Repeat("r", 256<<10), ""},
		"a longer one":        {"colour", strings.Repeat("r", 256<<10) + " ", "longer than 256 KiB"},
		"a longer number":     {"rest", strings.Repeat("1", 256<<10) + "1", "longer than 256 KiB"},
		"a path":              {"vault", "/etc/secret", "put @ before it"},
		"number for text":     {"vault", 5, "once, as text"},
		"two values":          {"vault", []any{"a", "b"}, "once, as text"},
		"number of seconds":   {"rest", 90, ""},
		"days":                {"rest", "1d", ""},
		"no whole second":     {"rest", "1500ms", "whole seconds"},
		"less than a second":  {"rest", "1ms", "whole seconds"},
		"no duration":         {"rest", "soon", "such as 90s"},
		"negative":            {"rest", -1, "not negative"},
		"beyond arithmetics":  {"rest", "9999999999999", "8784h"},
		"no flag":             {"check", "perhaps", "true or false"},
		"no number":           {"depth", "deep", "a whole number"},
		"invisible in number": {"depth", "1\u200b2", "an invisible character"},
	} {
		_, _, err := field.Clean(schema, map[string]any{c.field: c.value})
		if c.says == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.field+": ", name)
		require.ErrorContains(t, err, c.says, name)
	}
	_, _, err = field.Clean(schema, map[string]any{"vault": 1, "depth": "x"})
	require.ErrorContains(t, err, "depth: ", "the first in alphabetical order")
}

// A client secret is not taken for the path of a file, nor the other way round.
func TestPathsOfFiles(t *testing.T) {
	refused := func(name, value string) bool {
		_, _, err := field.Clean(field.Schema(specs()), map[string]any{name: value})
		if err != nil {
			require.ErrorContains(t, err, name+": is ")
			require.ErrorContains(t, err, "put @ before it")
			require.NotContains(t, err.Error(), value)
		}
		return err != nil
	}
	paths := []string{
		"secret.TXT", "secrets/mdi.txt", "my secret.txt", "file:///etc/s", "FILE:s", "/etc/secret", "@/etc/secret", "~/secret", "./s", "..\\s", "@../s",
		"C:\\Users\\me\\s", "c:/s", "\\\\server\\share\\s", "@secrets/mdi/a-b_c", "@secret.pem",
	}
	for _, path := range append([]string{"bundle.PEM", "my bundle.pem", "cert.der", "bundle", "MIIabc"}, paths...) {
		require.True(t, refused("name", path), path)
	}
	for _, path := range paths {
		require.True(t, refused("vault", path), path)
	}
	for _, secret := range []string{"@Xy8zQ.kk?2[w_Tt", "/hqJ1[JDoFdI?FWKeQ1SX", "abc8Q~Xyz.123-_zzz", "/ab+c/dE=", "@/[x]/y", "a/b+c/d]e", "ab/cd/ef", ".x~y", "file", "pem"} {
		require.False(t, refused("vault", secret), secret)
	}
}

// What no line contains is refused, whichever invisible character it is.
func TestLine(t *testing.T) {
	visible := rapid.StringMatching(`[!-~]([ -~]*[!-~])?`)
	edge := rapid.SampledFrom([]string{"", "\uFEFF", "\r\n", "\uFEFF\r\n", "\n", " \t", "\u00A0"})
	odd := map[string]string{
		"\x00": "a NUL", "\u200B": "invisible", "\u200D": "invisible", "\u2060": "invisible", "\uFEFF": "invisible", "\u00AD": "invisible", "\uFE0F": "invisible",
		"\u034F": "invisible", "\u3164": "invisible", "\a": "control", "\x7F": "control", "\u00A0": "unusual space", "\uFFFD": "not UTF-8", "\n": "line break",
	}
	rapid.Check(t, func(t *rapid.T) {
		text := visible.Draw(t, "text")
		got, err := field.Line(edge.Draw(t, "before") + text + edge.Draw(t, "after"))
		require.NoError(t, err)
		require.Equal(t, text, got)
		r := rapid.SampledFrom(slices.Sorted(maps.Keys(odd))).Draw(t, "character")
		_, err = field.Line("hunter2" + text + r + text)
		require.ErrorContains(t, err, odd[r])
		require.NotContains(t, err.Error(), "hunter2")
		_, err = field.Line("\uFFFD\uFFFD" + strings.Join(strings.Split("hunter2"+text, ""), "\x00"))
		require.ErrorContains(t, err, "UTF-16")
	})
}

func TestWrite(t *testing.T) {
	h := house{Colour: "red"}
	require.NoError(t, field.Write(h.specs(), data(map[string]any{"name": "X", "depth": 3}), true))
	require.Equal(t, house{Name: "x", Colour: "white", Rest: 90 * time.Minute}, h, "defaults, and not what its owner checks")
	require.NoError(t, field.Write(h.specs(), data(map[string]any{"rest": "1m", "colour": "red"}), false))
	require.Equal(t, house{Name: "x", Colour: "red", Rest: time.Minute}, h)
	require.NoError(t, field.Write(h.specs(), data(map[string]any{"colour": nil}), false))
	require.Equal(t, house{Name: "x", Colour: "white", Rest: time.Minute}, h, "null asks for the default")

	err := field.Write(h.specs(), data(map[string]any{"colour": "blue"}), false)
	require.EqualError(t, err, "colour: must be one of white, red")
	err = field.Write(h.specs(), data(map[string]any{"name": nil}), false)
	require.Equal(t, &field.Error{Field: "name", Problem: "must not be empty"}, err)
	require.EqualError(t, err, "name: must not be empty")
}

func TestValue(t *testing.T) {
	for name, c := range map[string]struct {
		fields map[string]any
		value  any
		given  bool
	}{
		"given":    {map[string]any{"rest": "2m"}, 120, true},
		"null":     {map[string]any{"rest": nil}, 5400, true},
		"left out": {nil, 5400, false},
	} {
		value, given := field.Value(data(c.fields), "rest")
		require.Equal(t, c.value, value, name)
		require.Equal(t, c.given, given, name)
	}
}

// Each kind of value is stored where At says, and is read from there.
func TestKindsOfValues(t *testing.T) {
	type state struct {
		text     string
		flag     bool
		duration time.Duration
		unset    *time.Duration
	}
	s := state{}
	specs := []field.Spec{
		{Name: "text", At: &s.text},
		{Name: "flag", At: &s.flag},
		{Name: "duration", At: &s.duration},
		{Name: "unset", At: &s.unset},
		{Name: "secret", Secret: true, At: &s.text},
	}
	require.Equal(t, map[string]any{"text": "", "flag": false, "duration": int64(0)}, field.Read(specs))
	d := &framework.FieldData{Schema: field.Schema(specs), Raw: map[string]any{"text": "x", "flag": true, "duration": 60, "unset": 0}}
	require.NoError(t, field.Write(specs, d, false))
	require.Equal(t, map[string]any{"text": "x", "flag": true, "duration": int64(60), "unset": int64(0)}, field.Read(specs))
	require.Equal(t, state{"x", true, time.Minute, new(time.Duration)}, s)
	d.Raw = map[string]any{"unset": nil, "duration": nil}
	require.NoError(t, field.Write(specs, d, false))
	require.Equal(t, state{"x", true, 0, nil}, s, "null unsets what can be unset")
}

func TestDurations(t *testing.T) {
	const year = 366 * 24 * 60 * 60
	for name, c := range map[string]struct {
		orNone  bool
		seconds int
		problem string
	}{
		"shortest":          {false, 60, ""},
		"too short":         {false, 59, "must be between 1m0s and 8784h"},
		"longest":           {false, year, ""},
		"too long":          {false, year + 1, "must be between 1m0s and 8784h"},
		"no duration":       {false, 0, "must be between 1m0s and 8784h"},
		"shortest period":   {true, 60, ""},
		"too short, period": {true, 59, "must be between 1m0s and 8784h, or 0 for none"},
		"no period":         {true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got time.Duration
			specs := []field.Spec{{
				Name: "d", Shortest: time.Minute, OrNone: c.orNone,
				At: &got,
			}}
			err := field.Write(specs, &framework.FieldData{Schema: field.Schema(specs), Raw: map[string]any{"d": c.seconds}}, false)
			if c.problem != "" {
				require.EqualError(t, err, "d: "+c.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, map[string]any{"d": int64(c.seconds)}, field.Read(specs))
		})
	}
}

// Fields that are only read, and how a value that is missing is read.
func TestFieldsThatAreOnlyRead(t *testing.T) {
	shown := func(text string, at time.Time) map[string]any {
		return field.Read([]field.Spec{
			field.Always("text", framework.TypeString, "A text.", text),
			field.IfKnown("known_text", framework.TypeString, "A text, if there is one.", field.Text(text)),
			field.IfKnown("at", framework.TypeTime, "A time, if there is one.", field.Time(at)),
		})
	}
	require.Equal(t, map[string]any{"text": ""}, shown("", time.Time{}))
	full := shown("x", time.Date(2027, 2, 28, 13, 0, 0, 0, time.FixedZone("", 3600)))
	require.Equal(t, map[string]any{"text": "x", "known_text": "x", "at": "2027-02-28T12:00:00Z"}, full)
}
