// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseKey(t *testing.T) {
	for name, test := range map[string]struct{ body, key, reason string }{
		"value, example's name": {`{"value":{"@odata.type":"t","sensorDeploymentAccessKey":"k+/="}}`, "k+/=", ""},
		"value, schema's name":  {`{"value":{"deploymentAccessKey":"k"}}`, "k", ""},
		"root, example's name":  {`{"@odata.context":"c","sensorDeploymentAccessKey":"k"}`, "k", ""},
		"root, schema's name":   {`{"@odata.context":"c","deploymentAccessKey":"k"}`, "k", ""},
		"agreeing":              {`{"deploymentAccessKey":"k","sensorDeploymentAccessKey":"k","value":{"deploymentAccessKey":"k"}}`, "k", ""},
		"one is null":           {`{"deploymentAccessKey":null,"value":{"deploymentAccessKey":"k"}}`, "k", ""},
		"value is null":         {`{"deploymentAccessKey":"k","value":null}`, "k", ""},
		"escaped":               {`{"deploymentAccessKey":"k\u002b\/"}`, "k+/", ""},
		"as long as allowed":    {`{"deploymentAccessKey":"` + strings.Repeat("k", 4096) + `"}`, strings.Repeat("k", 4096), ""},

		"disagreeing names":  {`{"deploymentAccessKey":"k","sensorDeploymentAccessKey":"l"}`, "", "the answer contains two different keys"},
		"disagreeing places": {`{"deploymentAccessKey":"k","value":{"deploymentAccessKey":"l"}}`, "", "the answer contains two different keys"},
		"alternating":        {`{"deploymentAccessKey":"k","sensorDeploymentAccessKey":"l","value":{"deploymentAccessKey":"k"}}`, "", "the answer contains two different keys"},
		"empty object":       {`{}`, "", reasonNoKey},
		"null":               {`null`, "", reasonNoKey},
		"empty key":          {`{"deploymentAccessKey":""}`, "", reasonNoKey},
		"blank key":          {`{"deploymentAccessKey":"  "}`, "", "the answer contains a key that cannot be one"},
		"newline in it":      {`{"deploymentAccessKey":"k\n"}`, "", "the answer contains a key that cannot be one"},
		"NUL in it":          {`{"deploymentAccessKey":"k\u0000"}`, "", "the answer contains a key that cannot be one"},
		"too long":           {`{"deploymentAccessKey":"` + strings.Repeat("k", 4097) + `"}`, "", "the answer contains a key that cannot be one"},
		"another type":       {`{"deploymentAccessKey":1}`, "", reasonUnreadable},
		"value is the key":   {`{"value":"k"}`, "", reasonUnreadable},
		"a list":             {`[{"deploymentAccessKey":"k"}]`, "", reasonUnreadable},
		"a page":             {`<html>deploymentAccessKey</html>`, "", reasonUnreadable},
		"nothing":            {``, "", reasonUnreadable},
		"truncated":          {`{"deploymentAccessKey":"k"`, "", reasonUnreadable},
		"more than one":      {`{"deploymentAccessKey":"k"}{}`, "", reasonUnreadable},
		"not UTF-8":          {"{\"deploymentAccessKey\":\"k\xff\"}", "", reasonUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			key, reason := parseKey([]byte(test.body))
			require.Equal(t, test.key, key)
			require.Equal(t, test.reason, reason)
		})
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(`{"value":{"sensorDeploymentAccessKey":"k"}}`))
	f.Add([]byte(`{"deploymentAccessKey":"k","value":{"deploymentAccessKey":"l"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		key, reason := parseKey(body)
		if (key == "") == (reason == "") {
			t.Fatalf("key %q, reason %q: want exactly one", key, reason)
		}
		if key == "" {
			return
		}
		again, err := json.Marshal(map[string]string{"deploymentAccessKey": key})
		require.NoError(t, err)
		same, _ := parseKey(again)
		require.Equal(t, key, same)
	})
}
