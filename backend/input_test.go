// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/role"
	"example.com/vault-plugin-secrets-mdi/backend/schedule"
)

// input is a request that gives one field a value. The properties below hold for each
// field of each path: those that the framework knows, so that one added later is covered.
type input struct {
	sim     *graphtest.Simulator
	path    string
	op      logical.Operation
	field   string
	schema  *framework.FieldSchema
	others  map[string]any // fields of the same request
	spoiled bool           // whether all fields have been set to something before
}

var requestID = regexp.MustCompile(`, request-id [0-9a-f-]+`)

var parameters = regexp.MustCompile(`\(\?P<.*>.*\)`)

// drawInput draws one of all fields.
func drawInput(t *rapid.T, sim *graphtest.Simulator) input {
	engine := newBackend(&logical.InmemStorage{}, time.Now, nil)
	defer engine.Cleanup(t.Context())
	var all []input
	for _, path := range engine.Paths {
		request := strings.NewReplacer("^", "", "?", "", "$", "").Replace(parameters.ReplaceAllString(path.Pattern, "fleet"))
		for _, name := range slices.Sorted(maps.Keys(path.Fields)) {
			for _, op := range []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.ListOperation, logical.ReadOperation} {
				read := op == logical.ReadOperation && path.Operations[logical.CreateOperation] != nil // which takes no fields
				if path.Operations[op] != nil && !read {
					all = append(all, input{path: request, op: op, field: name, schema: path.Fields[name]})
				}
			}
		}
	}
	in := all[rapid.IntRange(0, len(all)-1).Draw(t, "input")]
	in.sim, in.others = sim, map[string]any{}
	in.spoiled = in.op != logical.CreateOperation && rapid.Bool().Draw(t, "spoiled")
	if in.path == configPath {
		if rapid.Bool().Draw(t, "complete") {
			in.others = configOf(sim)
		}
		in.others[config.FieldVerifyConnection] = false
		if in.field == config.FieldVerifyConnection {
			in.others = configOf(sim)
			in.others[credential.FieldSecret] = "wrong"
		}
		delete(in.others, in.field)
	}
	t.Logf("%s %s: %s, spoiled %t", in.op, in.path, in.field, in.spoiled)
	return in
}

// reply is what came of a request.
type reply struct {
	refusal  string
	warnings []string
	listed   any
	config   config.Config
	shown    map[string]any // by path and field
}

// left is the value of a field for what leaves it out.
type left struct{}

// send gives the field a value, on a mount of its own.
func (in input) send(t *rapid.T, value any) reply {
	storage := &logical.InmemStorage{}
	clock := &clock{at: time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)}
	b := newBackend(storage, clock.now, clock.sleep)
	defer b.Cleanup(t.Context())
	require.NoError(t, b.Setup(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: storage}))
	m := fuzzed{b, storage}
	if in.spoiled {
		m.spoil(t, in.sim)
	}
	before := m.stored(t)
	data := maps.Clone(in.others)
	if value != (left{}) {
		data[in.field] = value
	}
	// As a plugin gets a request from core: numbers are float64.
	text, err := json.Marshal(data)
	require.NoError(t, err)
	data = map[string]any{}
	require.NoError(t, json.Unmarshal(text, &data))
	resp, err := m.send(t, in.op, in.path, data)
	after := m.stored(t)
	if err != nil {
		coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // core looks at no wrapped one
		require.True(t, ok, "core would answer 500 to %q", err)
		require.Contains(t, []int{400, 404}, coded.Code(), err.Error())
		require.Equal(t, before, after, "it was refused, and has changed something")
		after.refusal = requestID.ReplaceAllString(err.Error(), "")
	}
	if resp != nil {
		after.warnings, after.listed = resp.Warnings, resp.Data["keys"]
	}
	return after
}

func (m fuzzed) send(t *rapid.T, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	resp, err := m.engine.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: path, Data: data, MountPoint: "mdi/"})
	if err == nil && resp.IsError() {
		t.Fatalf("the framework refuses %v with a text of its own: %v", data, resp.Error())
	}
	return resp, err
}

// spoil sets all fields to something else than their defaults, as far as they go together.
func (m fuzzed) spoil(t *rapid.T, sim *graphtest.Simulator) {
	base := configOf(sim)
	base[config.FieldVerifyConnection] = false
	_, err := m.send(t, logical.CreateOperation, configPath, base)
	require.NoError(t, err)
	for _, path := range []string{configPath, rolesPath + "fleet"} {
		schema := m.engine.Route(path).Fields
		for _, name := range slices.Sorted(maps.Keys(schema)) {
			value := good(schema[name], name, sim)[0]
			if name != config.FieldVerifyConnection {
				_, _ = m.send(t, logical.UpdateOperation, path, map[string]any{name: value, config.FieldVerifyConnection: false})
			}
		}
	}
}

// stored returns all that is stored, as it is read and as the engine sees it.
func (m fuzzed) stored(t *rapid.T) reply {
	o := reply{shown: map[string]any{}}
	for _, path := range []string{configPath, rolesPath + "fleet"} {
		resp, err := m.send(t, logical.ReadOperation, path, nil)
		require.NoError(t, err)
		if resp != nil {
			o.shown[path] = resp.Data
		}
	}
	cfg, err := m.engine.configs.Stored(t.Context())
	require.NoError(t, err)
	if cfg != nil {
		o.config = *cfg
	}
	return o
}

// bundle is a certificate with its key.
var bundle = sync.OnceValue(func() string {
	made, err := graph.NewCertificate("test", time.Hour, time.Now())
	if err != nil {
		panic(err)
	}
	return made.PEM
})

// good returns values that a field can have, the first of which is not its default.
func good(schema *framework.FieldSchema, name string, sim *graphtest.Simulator) []any {
	switch schema.Type {
	case framework.TypeBool:
		return []any{schema.Default != true, schema.Default == true}
	case framework.TypeDurationSecond:
		return []any{"2h", 0, 90, "1d", "5m"}
	case framework.TypeInt:
		return []any{1, 0}
	}
	if len(schema.AllowedValues) > 0 {
		return append(slices.Clone(schema.AllowedValues[1:]), schema.AllowedValues[0])
	}
	if value, known := configOf(sim)[name]; known {
		return []any{value}
	}
	switch name {
	case schedule.FieldCron:
		return []any{"0 3 * * *"}
	case config.FieldApplicationObjectID:
		return []any{sim.App().ClientID}
	case credential.FieldCertificate:
		return []any{bundle()}
	}
	return []any{"of-a-kind"}
}

// space is what is not part of a value that it surrounds: a byte-order mark, the end of a
// line, blanks.
func space(t *rapid.T, label string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"\ufeff", "\r\n", "\n", " ", "\t", "\u00a0"}), 0, 3).Draw(t, label), "")
}

// An empty text asks for the default, as null does, or is a 400 that names the field. It is
// never taken for 0 or false.
func TestAnEmptyValueIsTheDefault(t *testing.T) {
	sim := graphtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		empty := in.send(t, space(t, "empty"))
		require.Equal(t, in.send(t, nil), empty, "null")
		if empty.refusal != "" {
			absent := strings.Contains(empty.refusal, "there is no ") // a role, or what is to be patched
			verified := in.field == config.FieldVerifyConnection && strings.Contains(empty.refusal, "AADSTS7000215")
			require.True(t, absent || verified || strings.Contains(empty.refusal, in.field) || in.send(t, left{}).refusal == empty.refusal, empty.refusal)
			return
		}
		require.NotEqual(t, config.FieldVerifyConnection, in.field, "a wrong secret has been stored")
		if shown, ok := empty.shown[in.path].(map[string]any); ok {
			fresh := in
			fresh.spoiled, fresh.op = false, logical.CreateOperation
			if in.path == configPath {
				fresh.others = configOf(sim)
				fresh.others[config.FieldVerifyConnection] = false
				delete(fresh.others, in.field)
			}
			unset := fresh.send(t, left{})
			if unset.refusal == "" && (in.field != credential.FieldType) { // which says nothing but what the others say
				require.Equal(t, unset.shown[in.path].(map[string]any)[in.field], shown[in.field], "the default")
			}
		}
	})
}

// What surrounds a value is not part of it, and a text is as good as the JSON that it
// spells, since the vault command sends nothing else.
func TestWhatSurroundsAValueIsNotPartOfIt(t *testing.T) {
	sim := graphtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		value := rapid.SampledFrom(good(in.schema, in.field, sim)).Draw(t, "value")
		plain := in.send(t, value)
		require.Equal(t, plain, in.send(t, space(t, "before")+fmt.Sprint(value)+space(t, "after")))
		require.NotContains(t, plain.refusal, "plain text")
	})
}

// What is no text of one line is refused, for its kind of character and before anything is
// sent.
func TestTextThatIsNoneIsRefused(t *testing.T) {
	sim := graphtest.Start(t)
	kinds := map[string]string{
		"\x00": "a NUL character", "\ufffd": "not UTF-8", "\r\n": "a line break", "\x1b": "a control character", "\t": "a control character",
		"\u00a0": "an unusual space", "\u200b": "an invisible character", "\u2060": "an invisible character", "\ufeff": "an invisible character", "\u202e": "an invisible character",
	}
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		value := fmt.Sprint(rapid.SampledFrom(good(in.schema, in.field, sim)).Draw(t, "value"))
		says := "UTF-16"
		if in.schema.DisplayAttrs != nil && in.schema.DisplayAttrs.EditType != "" || rapid.Bool().Draw(t, "UTF-16") {
			value = inUTF16(value+"-of-several-characters", rapid.Bool().Draw(t, "mark"), rapid.Bool().Draw(t, "big endian"))
		} else {
			bad := rapid.SampledFrom(slices.Sorted(maps.Keys(kinds))).Draw(t, "character")
			value, says = value[:1]+bad+value[1:]+"xyz", kinds[bad]
		}
		before := sim.Calls(graphtest.Token).Started
		refused := in.send(t, value)
		require.Contains(t, refused.refusal, in.field+": ")
		require.Contains(t, refused.refusal, says)
		require.Equal(t, before, sim.Calls(graphtest.Token).Started)
	})
}

// inUTF16 returns what Windows writes, as the vault command sends it.
func inUTF16(text string, mark, bigEndian bool) string {
	units := utf16.Encode([]rune(text))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	var file []byte
	for _, u := range units {
		if bigEndian {
			file = binary.BigEndian.AppendUint16(file, u)
		} else {
			file = binary.LittleEndian.AppendUint16(file, u)
		}
	}
	return string(file)
}

// A value of another JSON type, or a number with a fraction, is a 400 that names the field and does not repeat the value.
func TestAValueOfAnotherTypeIsRefused(t *testing.T) {
	sim := graphtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		value := rapid.SampledFrom([]any{[]any{"quoted", "quoted"}, []any{""}, []any{}, map[string]any{"quoted": "quoted"}, map[string]any{}, 0.5, 90.5}).Draw(t, "value")
		refused := in.send(t, value).refusal
		require.Contains(t, refused, in.field+": must be ")
		require.NotContains(t, refused, "quoted")
	})
}

// What a client writes may be a secret in the wrong place: no error repeats a value, nor a
// name that can be one.
func TestNoErrorOfTheFieldsQuotesAValue(t *testing.T) {
	sim := graphtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		secret := "hunter" + rapid.StringMatching(`[0-9]{4}`).Draw(t, "secret")
		form := rapid.SampledFrom([]string{"%s", "%s %s %s %s %s", "0 %s * * *", "https://%s/x", "/etc/%s/x", "%s.pem", "%s\x00", "-----BEGIN %s-----", "TZ=%s", "%s\u200b"}).Draw(t, "form")
		odd := rapid.SampledFrom([]string{"%s", "~%s", "%s.=", "%s\n"}).Draw(t, "name")
		in.others[strings.ReplaceAll(odd, "%s", secret)] = ""
		o := in.send(t, strings.ReplaceAll(form, "%s", secret))
		said := strings.Join(append(o.warnings, o.refusal), "; ")
		require.Contains(t, said, "an unknown field")
		// What is not there is named: a role.
		require.NotContains(t, strings.ReplaceAll(said, "there is no role "+secret+": create it with a write to mdi/roles/"+secret, ""), secret)
	})
}

// A name that is no field's is told of whether the request succeeds or not, with the field
// that it resembles.
func TestAMistypedFieldIsNamed(t *testing.T) {
	sim := graphtest.Start(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, sim)
		i := rapid.IntRange(0, len(in.field)-1).Draw(t, "at")
		mistyped := in.field[:i] + rapid.SampledFrom([]string{"", in.field[i:i+1] + in.field[i:i+1], "-", "q"}).Draw(t, "typed") + in.field[i+1:]
		if mistyped == in.field || len(in.field) < 6 {
			t.Skip()
		}
		value := rapid.SampledFrom(good(in.schema, in.field, sim)).Draw(t, "value")
		in.others[mistyped] = value
		o := in.send(t, left{})
		said := strings.Join(append(o.warnings, o.refusal), "; ")
		found := regexp.MustCompile(`^unknown field ` + mistyped + ` \(did you mean (?:\w+ or )*(\w+)\?\); `).FindStringSubmatch(said)
		require.NotNil(t, found, said)
		// One of root_rotation_period and rotation_period is as good a guess as the other.
		require.True(t, strings.HasSuffix(found[1], in.field) || strings.HasSuffix(in.field, found[1]), said)
	})
}

// The property tests draw from the fields of all paths.
func TestTheFieldsOfAllPathsAreDrawn(t *testing.T) {
	sim := graphtest.Start(t)
	drawn := map[string]bool{}
	for seed := range 400 {
		in := rapid.Custom(func(t *rapid.T) input { return drawInput(t, sim) }).Example(seed)
		drawn[in.path+" "+in.field] = true
	}
	engine := newBackend(&logical.InmemStorage{}, time.Now, nil)
	defer engine.Cleanup(t.Context())
	require.Greater(t, len(drawn), 25)
	for _, f := range []string{configPath + " " + config.FieldTTL, rolesPath + "fleet " + role.FieldMaxKeyAge, rolesPath + " limit", "key/fleet role"} {
		require.True(t, drawn[f], f)
	}
}
