// SPDX-License-Identifier: MPL-2.0

package rootrotation_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

// The answer about a certificate was lost. A client repeats the request, although it does
// not work everywhere yet, and Graph may list it late.
func TestLostCertificate(t *testing.T) {
	for _, app := range certificates {
		for name, lag := range map[string]int{"listed": 0, "listed late": 1} {
			t.Run(app+" "+name, func(t *testing.T) {
				e := start(t, app, graphtest.WithPropagation(20), graphtest.WithListingLag(lag))
				e.loses(graphtest.Fault{AfterWork: true, Reset: true})
				thumbprint := e.status().Of.Thumbprint
				require.NotEmpty(t, e.rotate())
				e.hours(3)
				require.False(t, e.status().Unfinished)
				info, err := graph.ParseCertificate(e.stored().Credential.Certificate)
				require.NoError(t, err)
				require.Equal(t, thumbprint, info.Thumbprint, "it is the one in use")
				require.Equal(t, 1, e.own())
				e.works()
			})
		}
		t.Run(app+" abandoned", func(t *testing.T) {
			e := start(t, app)
			e.loses(graphtest.Fault{AfterWork: true, Reset: true})
			thumbprint := e.status().Of.Thumbprint
			e.restart()
			e.pass(6*time.Hour + time.Second)
			e.hours(3)
			require.False(t, e.status().Unfinished)
			require.Zero(t, e.status().Retiring)
			if app == certificate {
				require.Zero(t, e.own())
				require.Regexp(t, "INFO.*done with a credential.*"+thumbprint, e.log.String())
			} else {
				require.Equal(t, 1, e.own())
				require.Regexp(t, "WARN.*remove it in the portal.*"+thumbprint, e.log.String())
			}
		})
	}
}

// The engine uses a certificate whose id it does not know.
func TestCertificateOfUnknownIDIsNotForgotten(t *testing.T) {
	for name, permitted := range map[string]bool{"named": false, "removed": true} {
		t.Run(name, func(t *testing.T) {
			e := start(t, unprivileged)
			e.loses(graphtest.Fault{AfterWork: true, Reset: true})
			thumbprint := e.status().Of.Thumbprint
			e.rotate()
			require.Equal(t, []string{thumbprint}, e.ids())
			e.works()
			if permitted {
				e.sim.Update(graphtest.WithRoles(graphtest.RoleReadWrite, graphtest.RoleOwnedBy))
				e.restart() // its token has the roles of before
			}
			e.rotate()
			e.hours(1)
			require.Zero(t, e.status().Retiring)
			require.Zero(t, e.stored().Root.Failures)
			if permitted {
				require.Equal(t, 1, e.own())
			} else {
				require.Regexp(t, "WARN.*remove it in the portal.*"+thumbprint, e.log.String())
			}
		})
	}
}

// A certificate that Graph refuses for good is not kept as if it might be there.
func TestCertificateThatIsRefusedIsDropped(t *testing.T) {
	each(t, certificates, func(t *testing.T, e *engine, _ string) {
		_, err := e.rotator.Rotate(e.ctx)
		require.Error(t, err)
		require.False(t, e.status().Unfinished)
	}, graphtest.WithMaxCredentialLifetime(time.Hour))
	t.Run("after a crash", func(t *testing.T) {
		e := start(t, certificate)
		e.loses(graphtest.Fault{Reset: true})
		e.sim.Update(graphtest.WithMaxCredentialLifetime(time.Hour))
		require.NotEmpty(t, e.rotate(), "it may not be listed yet")
		e.pass(credential.ListingLag)
		_, err := e.rotator.Rotate(e.ctx)
		require.Error(t, err)
		require.False(t, e.status().Unfinished)
	})
}

// A credential has been removed, and the note of that was lost.
func TestNoteOfARemovalIsLost(t *testing.T) {
	each(t, apps, func(t *testing.T, e *engine, app string) {
		e.rotate()
		e.rotate()
		e.storage.FailWhen(func(op, key string) bool { return op == "put" && key == config.StorageKey })
		e.pass(credential.Grace)
		e.storage.FailWhen(nil)
		require.Equal(t, 1, e.own())
		e.restart()
		e.hours(1)
		require.Zero(t, e.status().Retiring)
		require.Zero(t, e.stored().Root.Failures)
		require.Equal(t, app == unprivileged, warned(e, "seems to have been removed before"))
	})
}

func warned(e *engine, text string) bool {
	return regexp.MustCompile("WARN.*" + text).MatchString(e.log.String())
}

// A bad proof is no sign that a certificate has gone.
func TestRemovalThatIsRefused(t *testing.T) {
	e := start(t, unprivileged)
	e.rotate()
	e.rotate()
	e.sim.Inject(graphtest.Fault{Operation: graphtest.RemoveKey, Times: 2, Status: 403})
	e.hours(1)
	require.Equal(t, 1, e.status().Retiring)
	require.Equal(t, 1, e.stored().Root.Failures)
	e.hours(2)
	require.Zero(t, e.status().Retiring)
}

// owning starts an engine with a credential of its own, one that is retiring, and one that
// does not work yet.
func owning(t *testing.T, app string) (*engine, []string) {
	t.Helper()
	e := start(t, app)
	e.rotate()
	e.rotate()
	e.sim.Update(graphtest.WithPropagation(20))
	require.NotEmpty(t, e.rotate())
	require.Len(t, e.ids(), 3)
	return e, e.ids()
}

// names requires that a warning, and the log, name what stays with the app.
func (e *engine) names(warning string, left []string) {
	e.t.Helper()
	require.Contains(e.t, warning, "Remove them in the Entra portal")
	for _, id := range left {
		require.Contains(e.t, warning, id)
		require.Contains(e.t, e.log.String(), id)
	}
}

// What is forgotten for each change is a matter of credential.Life, and tested there.
func TestWhatStaysIsNamed(t *testing.T) {
	for _, app := range []string{secret, certificate} {
		t.Run(app+" deleted", func(t *testing.T) {
			e, left := owning(t, app)
			e.names(e.rotator.WarnOfForgotten(e.ctx, e.stored(), nil), left)
		})
		t.Run(app+" unmounted", func(t *testing.T) {
			e, left := owning(t, app)
			e.rotator.WarnOnUnmount(e.ctx)
			e.names("Remove them in the Entra portal", nil)
			for _, id := range left {
				require.Contains(t, e.log.String(), id)
			}
		})
	}
	t.Run("another kind", func(t *testing.T) {
		e, left := owning(t, certificate)
		e.names(e.configure(map[string]any{secret: e.sim.App().ClientSecret}), left)
		require.Empty(t, e.ids())
		require.Equal(t, 3, e.own())
	})
	t.Run("nothing", func(t *testing.T) {
		e := start(t, secret)
		require.Empty(t, e.configure(map[string]any{config.FieldTTL: 60}))
		require.Empty(t, e.rotator.WarnOfForgotten(e.ctx, e.stored(), nil))
		e.rotator.WarnOnUnmount(e.ctx)
		require.NotContains(t, e.log.String(), "Entra portal")
	})
	t.Run("unreadable", func(t *testing.T) {
		e := start(t, secret)
		e.storage.FailWhen(storagetest.Nth(1, "get", config.StorageKey))
		e.rotator.WarnOnUnmount(e.ctx)
		require.Contains(t, e.log.String(), "look for those named vault-plugin-secrets-mdi")
	})
}

// An earlier version has left a certificate on the list of an app that signs in otherwise.
func TestCertificateOfAnEarlierVersionIsNamed(t *testing.T) {
	e := start(t, secret)
	conn, err := e.configs.Current(e.ctx)
	require.NoError(t, err)
	conn.Config.Root.Made = []credential.Made{{Stage: "retiring", Type: certificate, KeyID: "left"}}
	require.NoError(t, e.configs.Save(e.ctx, conn))
	e.hours(1)
	require.Empty(t, e.ids())
	require.Regexp(t, "WARN.*cannot be removed by an app that signs in otherwise.*left", e.log.String())
}

// A configuration that leads elsewhere ends what is unfinished: the other host sees no
// credential that the engine has made to replace the one in use, and is asked for nothing.
func TestNothingIsDoneElsewhere(t *testing.T) {
	e, left := owning(t, secret)
	inUse, other := e.stored(), graphtest.Start(t)
	warning := e.configure(map[string]any{
		secret: inUse.Credential.Secret, config.FieldAuthorityHost: other.URL(),
		config.FieldCACertificate: e.sim.CACertificate() + other.CACertificate(), config.FieldVerifyConnection: false,
	})
	kept := e.ids()
	require.Len(t, kept, 1, "the current one stays the engine's own")
	for _, id := range left {
		require.Equal(t, id != kept[0], strings.Contains(warning, id))
	}
	require.Equal(t, inUse.Root.Since.UTC(), e.stored().Root.Since.UTC())
	require.Equal(t, inUse.Root.EndsAt.UTC(), e.stored().Root.EndsAt.UTC())
	require.False(t, e.status().Unfinished)
	e.hours(1)
	require.Zero(t, other.Calls(graphtest.Token).Started)
	require.Zero(t, other.Calls(graphtest.RemovePassword).Started)
}
