// SPDX-License-Identifier: MPL-2.0

package credential

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// oldLife is what version 0.1.x reads and stores of the credentials.
type oldLife struct {
	Period     time.Duration `json:"root_rotation_period"`
	Since      time.Time     `json:"since"`
	KeyID      string        `json:"key_id"`
	Thumbprint string        `json:"thumbprint"`
	EndsAt     time.Time     `json:"ends_at"`
	Intent     string        `json:"intent"`
	IntentAt   time.Time     `json:"intent_at"`
	Wanted     bool          `json:"wanted"`
	Pending    *oldMade      `json:"pending"`
	Retiring   []oldRetiring `json:"retiring"`
	Failures   int           `json:"failures"`
}

type oldMade struct {
	Credential Credential `json:"credential"`
	KeyID      string     `json:"key_id"`
	MadeAt     time.Time  `json:"made_at"`
	EndsAt     time.Time  `json:"ends_at"`
}

type oldRetiring struct {
	Type        string    `json:"type"`
	KeyID       string    `json:"key_id"`
	Thumbprint  string    `json:"thumbprint"`
	RemoveAfter time.Time `json:"remove_after"`
}

func convert[T any](t *testing.T, from any) T {
	t.Helper()
	text, err := json.Marshal(from)
	require.NoError(t, err)
	var to T
	require.NoError(t, json.Unmarshal(text, &to))
	return to
}

// What either version has stored means the same to the other, and to itself after it.
func TestStoredByEitherVersion(t *testing.T) {
	made, err := graph.NewCertificate("ours", 24*time.Hour, time.Now())
	require.NoError(t, err)
	info, err := graph.ParseCertificate(made.PEM)
	require.NoError(t, err)
	later := start.Add(time.Hour)
	pem := Credential{Type: ClientCertificate, Certificate: made.PEM}
	for name, c := range map[string]struct {
		inUse string
		life  Life
		old   oldLife
	}{
		"nothing made": {ClientSecret, Life{Period: time.Hour, Since: start}, oldLife{Period: time.Hour, Since: start}},
		"planned secret": {
			ClientSecret,
			Life{Made: []Made{{Stage: planned, Type: ClientSecret, Name: "n", PlannedAt: start}}, Requested: true, Failures: 1, EndsAt: later},
			oldLife{Intent: "n", IntentAt: start, Wanted: true, Failures: 1, EndsAt: later},
		},
		"planned certificate": {
			ClientCertificate,
			Life{Made: []Made{{Stage: planned, Type: ClientCertificate, Thumbprint: info.Thumbprint, Credential: pem, PlannedAt: start, EndsAt: later}}, EndsAt: later},
			oldLife{Pending: &oldMade{Credential: pem, MadeAt: start, EndsAt: later}, EndsAt: later},
		},
		"added": {
			ClientSecret,
			Life{Made: []Made{{Stage: added, Type: ClientSecret, KeyID: "a", Credential: Credential{Type: ClientSecret, Secret: "s"}, PlannedAt: start}}},
			oldLife{Pending: &oldMade{Credential: Credential{Type: ClientSecret, Secret: "s"}, KeyID: "a", MadeAt: start}},
		},
		"current and retiring": {
			ClientCertificate,
			Life{EndsAt: later, Made: []Made{
				{Stage: current, Type: ClientCertificate, Thumbprint: "p"},
				{Stage: retiring, Type: ClientSecret, KeyID: "a", RemoveAfter: later},
				{Stage: retiring, Type: ClientCertificate, Thumbprint: "b", RemoveAfter: later},
			}},
			oldLife{EndsAt: later, Thumbprint: "p", Retiring: []oldRetiring{{ClientSecret, "a", "", later}, {ClientCertificate, "", "b", later}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inUse := Credential{Type: c.inUse}
			require.Equal(t, c.old, convert[oldLife](t, c.life), "a downgrade")
			require.Equal(t, c.life.Names(), convert[Life](t, c.life).Names())
			upgraded := convert[Life](t, c.old).With(inUse)
			require.Equal(t, c.life, upgraded, "an upgrade, and one after a downgrade")
			again := convert[Life](t, upgraded).With(inUse)
			require.Equal(t, c.life.Names(), again.Names())
			require.Equal(t, c.life.Next(later, true), again.Next(later, true))
		})
	}
	var l Life
	require.Error(t, json.Unmarshal([]byte(`{"made": 1}`), &l))
}

func TestNext(t *testing.T) {
	secret := func(age time.Duration) Life {
		return Life{Made: []Made{{Stage: planned, Type: ClientSecret, Name: "x", PlannedAt: start.Add(-age)}}}
	}
	for name, c := range map[string]struct {
		life Life
		want string
	}{
		"nothing to do":               {Life{}, Nothing},
		"planned secret":              {secret(0), Nothing},
		"almost old":                  {secret(ListingLag - time.Second), Nothing},
		"old":                         {secret(ListingLag), Find},
		"of another node's clock":     {secret(-time.Second), Nothing},
		"of a clock far ahead":        {secret(-time.Hour), Find},
		"of a version without time":   {Life{Made: []Made{{Stage: planned, Type: ClientSecret, Name: "x"}}}, Find},
		"after a failure":             {Life{Requested: true, NextAttempt: start.Add(time.Second)}, Nothing},
		"requested":                   {Life{Requested: true, NextAttempt: start}, Plan},
		"period is not over":          {Life{Period: time.Hour, Since: start.Add(time.Second - time.Hour)}, Nothing},
		"period is over":              {Life{Period: time.Hour, Since: start.Add(-time.Hour)}, Plan},
		"half of its life is over":    {Life{Period: 720 * time.Hour, Since: start.Add(-time.Hour), EndsAt: start.Add(time.Hour)}, Plan},
		"more than half is to come":   {Life{Period: 720 * time.Hour, Since: start.Add(-time.Hour), EndsAt: start.Add(time.Hour + time.Second)}, Nothing},
		"certificate is expired soon": {Life{Made: []Made{{Stage: planned, Type: ClientCertificate, PlannedAt: start.Add(-pendingTTL)}}}, Add},
		"certificate is expired":      {Life{Made: []Made{{Stage: planned, Type: ClientCertificate, PlannedAt: start.Add(-pendingTTL - 1)}}}, Abandon},
		"secret is expired":           {Life{Made: []Made{{Stage: added, Type: ClientSecret, PlannedAt: start.Add(-pendingTTL - 1)}}}, Abandon},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.life.Next(start, false).Do) })
	}
}

// What a configuration puts out of the engine's reach is forgotten, which the caller names.
func TestConfigured(t *testing.T) {
	secrets := Life{Made: []Made{
		{Stage: current, Type: ClientSecret, KeyID: "current"}, {Stage: retiring, Type: ClientSecret, KeyID: "old"}, {Stage: planned, Type: ClientSecret, Name: "lost"},
	}}
	certificates := Life{Made: []Made{
		{Stage: current, Type: ClientCertificate, KeyID: "current"}, {Stage: retiring, Type: ClientCertificate, KeyID: "old"}, {Stage: planned, Type: ClientCertificate, Thumbprint: "lost"},
	}}
	secret, other, certificate := Credential{Type: ClientSecret, Secret: "s"}, Credential{Type: ClientSecret, Secret: "o"}, Credential{Type: ClientCertificate, Certificate: "c"}
	for name, c := range map[string]struct {
		life Life
		e    Event
		kept []string
	}{
		"another secret":                    {secrets, Event{Old: secret, New: other, SameApp: true}, []string{"current", "old", "lost"}},
		"the same secret elsewhere":         {secrets, Event{Old: secret, New: secret, SameApp: true, Redirected: true}, []string{"current"}},
		"another secret elsewhere":          {secrets, Event{Old: secret, New: other, SameApp: true, Redirected: true}, nil},
		"the same secret, another app":      {secrets, Event{Old: secret, New: secret}, nil},
		"a certificate instead of a secret": {secrets, Event{Old: secret, New: certificate, SameApp: true}, []string{"current", "old", "lost"}},
		"a secret instead of a certificate": {certificates, Event{Old: certificate, New: secret, SameApp: true}, nil},
		"another certificate":               {certificates, Event{Old: certificate, New: Credential{Type: ClientCertificate}, SameApp: true}, []string{"current", "old"}},
		"a managed identity":                {secrets, Event{Old: secret, New: Credential{Type: ManagedIdentity}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.e.Kind, c.e.At = Configured, start
			next, fits := c.life.Apply(c.e)
			require.True(t, fits)
			var kept []string
			for _, m := range next.Made {
				kept = append(kept, m.KeyID+m.Name+m.Thumbprint)
			}
			require.Equal(t, c.kept, kept)
		})
	}
	_, fits := secrets.Apply(Event{Kind: Planned})
	require.False(t, fits, "one is planned")
	_, fits = Life{}.Apply(Event{Kind: Proven})
	require.False(t, fits)
}
