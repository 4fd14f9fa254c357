// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// owning returns a simulator whose application may replace its own credentials.
func owning(t *testing.T, options ...graphtest.Option) *graphtest.Simulator {
	t.Helper()
	return graphtest.Start(t, append([]graphtest.Option{
		graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleOwnedBy),
	}, options...)...)
}

func TestReplacingTheSecret(t *testing.T) {
	sim := owning(t, graphtest.WithForeignPassword("another client's"))
	var log safeBuffer
	client, _ := simulated(t, sim, nil)
	app, err := client.Application(logging(t, &log))
	require.NoError(t, err)
	require.NotEmpty(t, app.ID)
	before := app.Passwords
	require.Len(t, before, 2)
	require.Empty(t, before[0].Secret+before[1].Secret)

	end := time.Now().Add(180 * 24 * time.Hour)
	added, err := client.AddPassword(logging(t, &log), "vault", end)
	require.NoError(t, err)
	require.NotEmpty(t, added.KeyID)
	require.Equal(t, "vault", added.DisplayName)
	require.WithinDuration(t, end, added.End, time.Second)
	require.Contains(t, log.String(), "/v1.0/applications(appId=")

	renewed, _ := simulated(t, sim, func(c *Config) { c.Credential = added.Secret })
	require.NoError(t, renewed.SignIn(logging(t, &log)))

	own := before[slices.IndexFunc(before, func(p PasswordCredential) bool { return p.DisplayName != "another client's" })]
	require.NoError(t, renewed.RemovePassword(logging(t, &log), own.KeyID))
	require.NoError(t, renewed.RemovePassword(logging(t, &log), own.KeyID), "a repetition")
	require.Equal(t, 1, sim.Calls(graphtest.RemovePassword).Performed)
	app, err = renewed.Application(logging(t, &log))
	require.NoError(t, err)
	require.Equal(t, []string{"another client's", "vault"}, []string{app.Passwords[0].DisplayName, app.Passwords[1].DisplayName})

	old, _ := simulated(t, sim, nil)
	require.Equal(t, "AADSTS7000215", failed(t, old.SignIn(logging(t, &log))).Code)
	requireNoSecrets(t, sim, log.String())
}

func TestReplacingTheCertificate(t *testing.T) {
	cert, key := ours()
	// The proof allows it; no role would.
	sim := graphtest.Start(t, graphtest.WithCertificate(cert))
	client, _ := simulated(t, sim, func(c *Config) { c.Credential = ClientCertificate{PEM: cert + key} })
	objectID := objectIDOf(t, sim)
	made, err := NewCertificate("renewed", 24*time.Hour, time.Now())
	require.NoError(t, err)
	keyID, err := client.AddKey(t.Context(), objectID, made.PEM)
	require.NoError(t, err)

	renewed, _ := simulated(t, sim, func(c *Config) { c.Credential = made })
	require.NoError(t, renewed.SignIn(t.Context()))
	credentials := sim.Credentials()
	old := credentials[slices.IndexFunc(credentials, func(c graphtest.Credential) bool { return c.DisplayName == "ours" })]
	require.NoError(t, renewed.RemoveKey(t.Context(), objectID, old.KeyID))

	sim.Update(graphtest.WithRoles(graphtest.RoleOwnedBy))
	reader, _ := simulated(t, sim, func(c *Config) { c.Credential = made })
	app, err := reader.Application(t.Context())
	require.NoError(t, err)
	require.Equal(t, objectID, app.ID)
	info, err := ParseCertificate(made.PEM)
	require.NoError(t, err)
	require.Len(t, app.Keys, 1)
	require.Equal(t, keyID, app.Certificate(info.Thumbprint))
	require.Empty(t, app.Certificate("another"))
	require.NoError(t, reader.RemoveKey(t.Context(), objectID, old.KeyID), "a repetition")
}

func objectIDOf(t *testing.T, sim *graphtest.Simulator) string {
	t.Helper()
	sim.Update(graphtest.WithRoles(graphtest.RoleOwnedBy))
	defer sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite))
	client, _ := simulated(t, sim, nil)
	app, err := client.Application(t.Context())
	require.NoError(t, err)
	return app.ID
}

// withCertificate lets a client sign in, and so prove, with a certificate.
func withCertificate(c *Config) {
	cert, key := ours()
	c.Credential = ClientCertificate{PEM: cert + key}
}

func TestARefusedProof(t *testing.T) {
	cert, key := ours()
	sim := graphtest.Start(t, graphtest.WithCertificate(cert))
	client, _ := simulated(t, sim, func(c *Config) { c.Credential = ClientCertificate{PEM: cert + key} })
	made, err := NewCertificate("renewed", 24*time.Hour, time.Now())
	require.NoError(t, err)
	client.prove = func(objectID string) (string, error) { return proofOfPossession(made, objectID, time.Now()) } // which the app does not have
	_, err = client.AddKey(t.Context(), objectIDOf(t, sim), made.PEM)
	e := failed(t, err)
	require.Contains(t, e.Hint(), "proof")
	require.False(t, e.MayHaveHappened())
	requireNoSecrets(t, sim, everythingAbout(err))
}

func TestReplacingIsNotAllowed(t *testing.T) {
	for name, option := range map[string]graphtest.Option{
		"no permission": graphtest.WithRoles(graphtest.RoleReadWrite),
		"not its owner": graphtest.WithOwner(false),
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := simulated(t, owning(t, option), nil)
			_, err := client.AddPassword(t.Context(), "vault", time.Now().Add(time.Hour))
			e := failed(t, err)
			require.Equal(t, http.StatusForbidden, e.Status)
			require.Contains(t, e.Hint(), "Application.ReadWrite.OwnedBy")
			require.Contains(t, e.Hint(), "owner of itself")
			_, err = client.Application(t.Context())
			require.Equal(t, e.Hint(), failed(t, err).Hint())
			require.True(t, Invisible(err))
			require.Equal(t, e.Hint(), failed(t, client.RemovePassword(t.Context(), "x")).Hint())
		})
	}
}

func TestThePolicyOfTheTenant(t *testing.T) {
	sim := owning(t, graphtest.WithMaxCredentialLifetime(time.Hour))
	client, _ := simulated(t, sim, nil)
	_, err := client.AddPassword(t.Context(), "vault", time.Now().Add(2*time.Hour))
	e := failed(t, err)
	require.Equal(t, "CredentialInvalidLifetimeAsPerAppPolicy", e.Code)
	require.Contains(t, e.Hint(), "shorten")
	require.False(t, e.MayHaveHappened())
}

func TestConflictsAreRepeated(t *testing.T) {
	conflict := graphtest.Fault{Operation: graphtest.AddPassword, Status: 409, Code: codeConcurrency}
	for times, succeeds := range map[int]bool{1: true, 2: true, 3: false} {
		sim := owning(t)
		client, waited := simulated(t, sim, nil)
		conflict.Times = times
		sim.Inject(conflict)
		_, err := client.AddPassword(t.Context(), "vault", time.Now().Add(time.Hour))
		require.Len(t, waited.All, min(times, 2))
		if succeeds {
			require.NoError(t, err)
			require.Equal(t, 1, sim.Calls(graphtest.AddPassword).Performed)
			continue
		}
		e := failed(t, err)
		require.Equal(t, codeConcurrency, e.Code)
		require.False(t, e.MayHaveHappened())
	}
	sim := owning(t)
	client, waited := simulated(t, sim, nil)
	sim.Inject(graphtest.Fault{Operation: graphtest.AddPassword, Status: 409, Code: "AnotherConflict"})
	_, err := client.AddPassword(t.Context(), "vault", time.Now().Add(time.Hour))
	require.Equal(t, http.StatusConflict, failed(t, err).Status)
	require.Empty(t, waited.All)
}

// TestAddingIsNotRepeated if it may have happened. Removing is.
func TestAddingIsNotRepeated(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"error":   {Status: 500, AfterWork: true, Times: 1},
		"gateway": {Status: 504, AfterWork: true, Times: 1},
		"lost":    {Lost: true, AfterWork: true, Times: 1},
		"reset":   {Reset: true, AfterWork: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			sim := owning(t)
			client, _ := simulated(t, sim, nil)
			fault.Operation = graphtest.AddPassword
			sim.Inject(fault)
			added, err := client.AddPassword(t.Context(), "vault", time.Now().Add(time.Hour))
			require.True(t, failed(t, err).MayHaveHappened())
			require.Zero(t, added)
			require.Equal(t, 1, sim.Calls(graphtest.AddPassword).Performed)
			requireNoSecrets(t, sim, everythingAbout(err))

			app, err := client.Application(t.Context())
			require.NoError(t, err)
			orphan := app.Passwords[slices.IndexFunc(app.Passwords, func(p PasswordCredential) bool { return p.DisplayName == "vault" })]
			fault.Operation = graphtest.RemovePassword
			sim.Inject(fault)
			require.NoError(t, client.RemovePassword(t.Context(), orphan.KeyID))
			require.Equal(t, 1, sim.Calls(graphtest.RemovePassword).Performed)
		})
	}
}

func TestUnusableAnswersAboutCredentials(t *testing.T) {
	cert, key := ours()
	calls := map[string]func(*testing.T, *Client) error{
		OpAddPassword: func(t *testing.T, c *Client) error {
			_, err := c.AddPassword(t.Context(), "x", time.Now())
			return err
		},
		OpAddKey: func(t *testing.T, c *Client) error {
			_, err := c.AddKey(t.Context(), "x", cert+key)
			return err
		},
		OpApplication: func(t *testing.T, c *Client) error {
			_, err := c.Application(t.Context())
			return err
		},
	}
	reasons := map[string]string{OpAddPassword: reasonNoCredential, OpAddKey: reasonNoCredential, OpApplication: "the answer does not describe the application"}
	for op, call := range calls {
		for body, reason := range map[string]string{
			`<html>hunter2`:            reasonUnreadable,
			`{"keyId":5}`:              reasonUnreadable,
			`{"secretText":"hunter2"}`: reasons[op],
		} {
			if op == OpApplication && body == `{"keyId":5}` {
				reason = "the answer does not describe the application" // the id of a key is elsewhere
			}
			client := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }, withCertificate)
			err := call(t, client)
			require.Equal(t, &Error{Op: op, Kind: Unreadable, Status: 200, Reason: reason}, failed(t, err), body)
			require.True(t, failed(t, err).MayHaveHappened())
			require.NotContains(t, everythingAbout(err), "hunter2")
		}
	}
}

// TestRemovingWhatIsNotThere: a 400 alone does not prove that it is gone.
func TestRemovingWhatIsNotThere(t *testing.T) {
	const there = "5e3f7a60-5a3a-4f5b-9d0c-1d8f3a1d2b01"
	for name, test := range map[string]struct {
		status      int
		application int // status of reading it
		unsigned    bool
		keyID       string
		gone        bool
	}{
		"404":                        {404, 500, false, there, true},
		"404 of a proxy":             {404, 200, true, "5e3f7a60-5a3a-4f5b-9d0c-1d8f3a1d2b02", false},
		"400 of a proxy":             {400, 403, true, "x", false},
		"400, not there":             {400, 200, false, "5e3f7a60-5a3a-4f5b-9d0c-1d8f3a1d2b02", true},
		"400, but there":             {400, 200, false, there, false},
		"400, and there as key":      {400, 200, false, strings.ToUpper(there[:35] + "3"), false},
		"400, and reading forbidden": {400, 403, false, "x", false},
		"another refusal":            {403, 200, false, "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			client := served(t, func(w http.ResponseWriter, r *http.Request) {
				if !test.unsigned {
					sign(w, r)
				}
				if r.Method == http.MethodPost {
					w.WriteHeader(test.status)
					return
				}
				require.Equal(t, "id,passwordCredentials,keyCredentials", r.URL.Query().Get("$select"))
				w.WriteHeader(test.application)
				_, _ = w.Write([]byte(`{"id":"x","passwordCredentials":[{"keyId":"` + there + `"}],` +
					`"keyCredentials":[{"keyId":"` + there[:35] + `3"}]}`))
			}, withCertificate)
			err := client.RemoveKey(t.Context(), "x", test.keyID)
			if test.gone {
				require.NoError(t, err)
				return
			}
			e := failed(t, err)
			require.Equal(t, OpRemoveKey, e.Op)
			require.Equal(t, test.status, e.Status)
			require.Equal(t, test.application == http.StatusForbidden && !test.unsigned, PerhapsGone(err))
		})
	}
}

func TestRequestsAboutCredentials(t *testing.T) {
	cert, key := ours()
	var path, sent string
	client := served(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		path, sent = r.URL.Path, string(body)
		require.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.EqualValues(t, len(body), r.ContentLength)
		_, _ = w.Write([]byte(`{"keyId":"id","secretText":"text"}`))
	}, withCertificate)
	end := time.Date(2031, 2, 3, 4, 5, 6, 7, time.FixedZone("", 3600))

	_, err := client.AddPassword(t.Context(), "vault", end)
	require.NoError(t, err)
	require.Equal(t, "/v1.0/applications(appId='9e3b8f7e-64a3-4d8a-b4a7-0f0d9f6b1c11')/addPassword", path)
	require.JSONEq(t, `{"passwordCredential":{"displayName":"vault","endDateTime":"2031-02-03T03:05:06Z"}}`, sent)

	id, err := client.AddKey(t.Context(), "an object/id", cert+key)
	require.NoError(t, err)
	require.Equal(t, "id", id)
	require.Equal(t, "/v1.0/applications/an object/id/addKey", path)
	var content struct {
		KeyCredential      map[string]string `json:"keyCredential"`
		PasswordCredential *string           `json:"passwordCredential"`
		Proof              string            `json:"proof"`
	}
	require.NoError(t, json.Unmarshal([]byte(sent), &content))
	require.Len(t, strings.Split(content.Proof, "."), 3)
	require.Nil(t, content.PasswordCredential)
	inPEM := strings.NewReplacer("-----BEGIN CERTIFICATE-----", "", "-----END CERTIFICATE-----", "", "\n", "").Replace(cert)
	require.Equal(t, map[string]string{"type": "AsymmetricX509Cert", "usage": "Verify", "key": inPEM}, content.KeyCredential)

	require.NoError(t, client.RemoveKey(t.Context(), "an object/id", "id"))
	require.Equal(t, "/v1.0/applications(appId='9e3b8f7e-64a3-4d8a-b4a7-0f0d9f6b1c11')/removeKey", path)
	var removal map[string]string
	require.NoError(t, json.Unmarshal([]byte(sent), &removal))
	require.Len(t, strings.Split(removal["proof"], "."), 3)
	require.Equal(t, map[string]string{"keyId": "id", "proof": removal["proof"]}, removal)
}

func TestACertificateIsFoundByItsThumbprint(t *testing.T) {
	const thumbprint = "0123456789ABCDEF0123456789ABCDEF01234567"
	for identifier, want := range map[string]string{
		"ASNFZ4mrze8BI0VniavN7wEjRWc=": "id", thumbprint: "id", strings.ToLower(thumbprint): "id",
		"": "", "bXkga2V5": "", thumbprint[1:]: "", thumbprint[1:] + "G": "", "ASNFZ4mrze8BI0VniavN7wEjRWd=": "",
	} {
		app := Application{Keys: []keyCredential{{KeyID: "another"}, {KeyID: "id", Identifier: identifier}}}
		require.Equal(t, want, app.Certificate(thumbprint), identifier)
	}
}

func TestCallsAboutCredentialsRespectTheContext(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, clientOf(t, nil).RemovePassword(gone, "x"), gone.Err())
}
