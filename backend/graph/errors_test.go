// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{
		"sign-in: timeout": {Op: OpSignIn, Kind: Timeout},
		"getDeploymentAccessKey: unreadable: the answer contains no key (HTTP 200)": {
			Op: OpGet, Kind: Unreadable, Status: 200, Reason: reasonNoKey,
		},
		"regenerateDeploymentAccessKey: throttled (HTTP 429, code TooManyRequests, request-id abc, retry after 41s)": {
			Op: OpRegenerate, Kind: Throttled, Status: 429, Code: "TooManyRequests", RequestID: "abc", RetryAfter: 41 * time.Second,
		},
	} {
		require.EqualError(t, e, want)
		require.NoError(t, errors.Unwrap(e))
	}
}

// What proves that a POST was not carried out: no complete request was sent, or Graph
// itself has refused it.
func TestMayHaveHappened(t *testing.T) {
	for name, test := range map[string]struct {
		e    Error
		want bool
	}{
		"sign-in refused":         {Error{Op: OpSignIn, Status: 401}, false},
		"sign-in lost":            {Error{Op: OpSignIn, Kind: Timeout}, false},
		"sign-in gateway":         {Error{Op: OpSignIn, Status: 504}, false},
		"not connected":           {Error{Op: OpRegenerate, Kind: Unavailable, unsent: true}, false},
		"timed out before":        {Error{Op: OpRegenerate, Kind: Timeout, unsent: true}, false},
		"timed out after":         {Error{Op: OpRegenerate, Kind: Timeout}, true},
		"reset":                   {Error{Op: OpRegenerate, Kind: Unavailable, Reason: reasonConnLost}, true},
		"unreadable success":      {Error{Op: OpRegenerate, Kind: Unreadable, Status: 200}, true},
		"conflict, key":           {*conflict(OpRegenerate, true), true},
		"conflict, app":           {*conflict(OpAddPassword, true), false},
		"conflict, app, unsigned": {*conflict(OpAddPassword, false), true},
		"nothing known (default)": {Error{}, true},
	} {
		require.Equal(t, test.want, test.e.MayHaveHappened(), name)
	}
}

func TestInvisible(t *testing.T) {
	require.True(t, Invisible(&Error{Op: OpApplication, Status: 403, Signed: true}))
	require.False(t, Invisible(&Error{Op: OpApplication, Status: 403}), "a proxy's page")
	require.False(t, Invisible(&Error{Op: OpAddKey, Status: 403, Signed: true}))
	require.False(t, Invisible(errors.New("403")))
}

func TestNamesNoKey(t *testing.T) {
	for name, test := range map[string]struct {
		e    Error
		want bool
	}{
		"404 of Graph":       {Error{Op: OpGet, Status: 404, Signed: true, keyless: true}, true},
		"404 of one version": {Error{Op: OpGet, Status: 404, Signed: true}, false},
		"404 of a proxy":     {Error{Op: OpGet, Status: 404}, false},
		"200 without a key":  {Error{Op: OpGet, Status: 200, Kind: Unreadable, Reason: reasonNoKey, Signed: true}, true},
		"200, unusable":      {Error{Op: OpGet, Status: 200, Kind: Unreadable, Reason: "the answer contains a key that cannot be one", Signed: true}, false},
		"a proxy's JSON":     {Error{Op: OpGet, Status: 200, Kind: Unreadable, Reason: reasonNoKey}, false},
		"200 of a proxy":     {Error{Op: OpGet, Status: 200, Kind: Unreadable, Reason: reasonUnreadable}, false},
		"no key from a POST": {Error{Op: OpRegenerate, Status: 200, Kind: Unreadable, Reason: reasonNoKey}, false},
		"another refusal":    {Error{Op: OpGet, Status: 403, Signed: true}, false},
	} {
		require.Equal(t, test.want, test.e.NamesNoKey(), name)
	}
}

func TestKindOf(t *testing.T) {
	for status, want := range map[int]Kind{
		204: Unreadable, 302: Refused, 400: Refused, 401: Refused, 403: Refused, 404: Refused, 408: Unavailable,
		410: Unavailable, 429: Throttled, 500: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable, 599: Unavailable,
	} {
		require.Equal(t, want, kindOf(status), http.StatusText(status))
	}
}

func TestHint(t *testing.T) {
	for code, want := range map[string]string{
		"AADSTS7000215": "not its id", "AADSTS7000222": "expired", "AADSTS700016": "client_id", "AADSTS90002": "tenant_id",
		"AADSTS700027": "certificate", "AADSTS500011": "cloud", "AADSTS53003": "conditional access",
		"AADSTS7000112": "disabled", "AADSTS7000229": "consent", "AADSTS90038": "cloud", "AADSTS900382": "cloud", "AADSTS900439": "cloud",
		"AADSTS700024": "clock", "AADSTS700021": "client_id", "AADSTS700023": "audience", "AADSTS700030": "issuer", "AADSTS50013": "signature",
		"AADSTS70021": "federated", "AADSTS700211": "issuer", "AADSTS700212": "audience", "AADSTS700213": "subject",
	} {
		require.Contains(t, (&Error{Op: OpSignIn, Code: code}).Hint(), want)
		require.Empty(t, (&Error{Op: OpGet, Code: code, Status: 409, Signed: true}).Hint(), "Graph does not send Entra's codes")
	}
	require.Contains(t, (&Error{Op: OpGet, Status: 401, Signed: true}).Hint(), "access token")
	forbidden := (&Error{Op: OpRegenerate, Status: 403, Signed: true}).Hint()
	require.Contains(t, forbidden, "SecurityIdentitiesSensors.ReadWrite.All")
	require.Contains(t, forbidden, "admin consent")
	require.Empty(t, (&Error{Op: OpSignIn, Status: 401, Code: "AADSTS1"}).Hint())
	require.Empty(t, (&Error{Op: OpGet, Status: 500}).Hint())
}

func TestHintsAboutCredentials(t *testing.T) {
	for name, test := range map[string]struct {
		e    Error
		want string
	}{
		"lifetime":              {Error{Op: OpAddPassword, Status: 400, Code: "CredentialInvalidLifetimeAsPerAppPolicy"}, "shorten"},
		"lifetime of a key":     {Error{Op: OpAddKey, Status: 403, Code: "CredentialInvalidLifetimeAsPerAppPolicy"}, "shorten"},
		"type":                  {Error{Op: OpAddPassword, Status: 400, Code: "CredentialTypeNotAllowedAsPerAppPolicy"}, "use another"},
		"another call's policy": {Error{Op: OpRegenerate, Status: 409, Code: "CredentialTypeNotAllowedAsPerAppPolicy"}, ""},
		"permission":            {Error{Op: OpRemovePassword, Status: 403}, ApplicationPermission},
		"permission to read":    {Error{Op: OpApplication, Status: 403}, ApplicationPermission},
		"registered elsewhere":  {Error{Op: OpAddPassword, Status: 404, Signed: true}, "home tenant"},
		"cannot be looked at":   {Error{Op: OpApplication, Status: 404, Signed: true}, "home tenant"},
		"nor be given a key":    {Error{Op: OpAddKey, Status: 404, Signed: true}, "home tenant"},
		"perhaps elsewhere":     {Error{Op: OpAddPassword, Status: 403}, "another tenant"},
		"a proxy's 404":         {Error{Op: OpAddPassword, Status: 404}, ""},
		"another call's 404":    {Error{Op: OpGet, Status: 404, Signed: true}, "graph_api_version"},
		"proof":                 {Error{Op: OpRemoveKey, Status: 403}, "proof"},
		"proof, documented":     {Error{Op: OpAddKey, Status: 401, Code: codeBadProof}, "proof"},
		"token":                 {Error{Op: OpAddKey, Status: 401, Code: "InvalidAuthenticationToken"}, "access token"},
		"token, other calls":    {Error{Op: OpAddPassword, Status: 401, Code: codeBadProof}, "access token"},
		"no advice":             {Error{Op: OpAddPassword, Status: 409}, ""},
		"no such identity":      {Error{Op: OpSignIn, Kind: Refused, Status: 400, managed: true}, "client_id"},
		"no endpoint":           {Error{Op: OpSignIn, Kind: Timeout, managed: true}, "Azure"},
		"a broken endpoint":     {Error{Op: OpSignIn, Kind: Unavailable, Status: 500, managed: true}, "70 seconds"},
	} {
		test.e.Signed = test.e.Op != OpSignIn && name != "a proxy's 404"
		if test.want == "" {
			require.Empty(t, test.e.Hint(), name)
			continue
		}
		require.Contains(t, test.e.Hint(), test.want, name)
	}
}

// Each hint begins with what is wrong; what to do about it comes after that.
func TestHintsBeginWithTheCause(t *testing.T) {
	codes := slices.Collect(maps.Keys(codeHints))
	for _, op := range []string{OpSignIn, OpRegenerate, OpGet, OpPackage, OpAddPassword, OpRemovePassword, OpAddKey, OpRemoveKey, OpApplication} {
		for _, status := range []int{0, 200, 302, 400, 401, 403, 404, 408, 409, 410, 429, 500, 503, 504} {
			for _, code := range append(codes, "", codeBadProof) {
				for bits := range 4 {
					e := &Error{Op: op, Status: status, Kind: kindOf(status), Code: code, Signed: bits&1 != 0, managed: bits&2 != 0}
					require.NotRegexp(t, `^(add|allow|assign|check|enable|give|grant|make|set|try|use|write)\b`, e.Hint(), "%+v", e)
				}
			}
		}
	}
}

// A managed identity has no app registration, so there is nothing to consent to.
func TestHintsForAManagedIdentity(t *testing.T) {
	for _, e := range []Error{{Op: OpGet, Status: 403}, {Op: OpRegenerate, Status: 403}, {Op: OpPackage, Status: 403}, {Op: OpGet, Status: 401}} {
		e.Signed = true
		app := e.Hint()
		e.managed = true
		own := e.Hint()
		require.NotEmpty(t, own)
		require.NotEqual(t, app, own)
		require.NotContains(t, own, "consent")
		require.NotContains(t, own, "authority_host")
	}
	require.Contains(t, (&Error{Op: OpPackage, Status: 403, Signed: true, managed: true}).Hint(), "app role "+PackagePermission)
	require.Contains(t, (&Error{Op: OpGet, Status: 403, Signed: true, managed: true}).Hint(), "up to a day")
}

// A proxy knows nothing of permissions, tokens and secrets: of its refusals, none is to be
// read as Entra's or Graph's, whatever the call and the status.
func TestHintsAboutForeignAnswers(t *testing.T) {
	for _, op := range []string{OpSignIn, OpRegenerate, OpGet, OpPackage, OpAddPassword, OpRemovePassword, OpAddKey, OpRemoveKey, OpApplication} {
		for status := 300; status < 500; status++ {
			for _, managed := range []bool{false, true} {
				e := &Error{Op: op, Kind: kindOf(status), Status: status, managed: managed}
				if ownMachine := managed && op == OpSignIn; !ownMachine && e.Kind == Refused {
					require.Equal(t, hintForeign, e.Hint(), "%s %d", op, status)
				} else {
					require.NotEqual(t, hintForeign, e.Hint(), "%s %d", op, status)
				}
				e.Signed, e.Code = true, "AADSTS7000215"
				require.NotEqual(t, hintForeign, e.Hint(), "%s %d", op, status)
			}
		}
		if op != OpSignIn {
			require.Equal(t, hintForeign, (&Error{Op: op, Kind: Unreadable, Status: 200, Reason: reasonUnreadable}).Hint(), "a page with a login form")
			require.Empty(t, (&Error{Op: op, Kind: Unreadable, Status: 200, Reason: reasonUnreadable, Signed: true}).Hint())
		}
		require.Empty(t, (&Error{Op: op, Kind: Unavailable}).Hint(), "no answer at all")
	}
	require.NotContains(t, hintForeign, "permission")
}

func TestFoundNobody(t *testing.T) {
	for name, test := range map[string]struct {
		e    Error
		want bool
	}{
		"Entra":                  {Error{Op: OpSignIn, Kind: Unavailable}, true},
		"Graph":                  {Error{Op: OpGet, Kind: Timeout}, true},
		"Entra answers":          {Error{Op: OpSignIn, Status: 400}, false},
		"no credential":          {Error{Op: OpSignIn, unsent: true}, false},
		"what to do is known":    {Error{Op: OpSignIn, Kind: Unavailable, Reason: "the server asks for a password: tell it"}, false},
		"the machine's endpoint": {Error{Op: OpSignIn, Kind: Timeout, managed: true}, false},
		"Graph, with its token":  {Error{Op: OpGet, Kind: Timeout, managed: true}, true},
	} {
		require.Equal(t, test.want, test.e.FoundNobody(), name)
	}
}
