// SPDX-License-Identifier: MPL-2.0

package rootrotation_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/rootrotation"
	"example.com/vault-plugin-secrets-mdi/backend/storagetest"
)

func TestRotate(t *testing.T) {
	each(t, apps, func(t *testing.T, e *engine, _ string) {
		configured := e.stored().Credential
		require.Empty(t, e.rotate())
		require.Equal(t, 1, e.own(), "the one that was configured is the operator's")
		require.NotEqual(t, configured, e.stored().Credential)
		require.Equal(t, configured.Type, e.stored().Credential.Type)
		e.restart()
		e.works()

		e.sim.Update(graphtest.WithPropagation())
		require.Empty(t, e.rotate())
		e.pass(0)
		require.Equal(t, 2, e.own(), "the grace period is not over")
		e.pass(credential.Grace)
		require.Equal(t, 1, e.own())
		e.works()
	}, graphtest.WithPropagation(3, 1))
}

func TestRotateAutomatically(t *testing.T) {
	each(t, apps, func(t *testing.T, e *engine, _ string) {
		require.NoError(t, e.rotator.RunDue(e.ctx))
		e.configure(map[string]any{config.FieldRootRotationPeriod: "720h"})
		e.pass(720*time.Hour - time.Minute)
		require.Zero(t, e.own())
		e.pass(time.Minute, credential.Grace)
		require.Equal(t, 1, e.own())
	})
}

func TestRotateWithoutAConfiguration(t *testing.T) {
	e := start(t, secret)
	require.NoError(t, e.configs.Save(e.ctx, nil))
	_, err := e.rotator.Rotate(e.ctx)
	require.ErrorIs(t, err, config.ErrUnconfigured)
	e.pass(time.Hour)
	e.rotator.WarnOnUnmount(e.ctx)
	require.NotContains(t, e.log.String(), "the mount is disabled or moved")
}

func TestCredentialThatDoesNotWorkIsNotUsed(t *testing.T) {
	each(t, apps, func(t *testing.T, e *engine, _ string) {
		before := e.stored().Credential
		require.NotEmpty(t, e.rotate())
		e.restart()
		e.works()
		e.pass(time.Hour, time.Hour)
		require.Equal(t, 1, e.own(), "no further one is added")
		require.Equal(t, before, e.stored().Credential)
	}, graphtest.WithPropagation(400))
}

// A credential that was removed before it ever worked is abandoned.
func TestCredentialThatNeverWorksIsAbandoned(t *testing.T) {
	each(t, apps, func(t *testing.T, e *engine, _ string) {
		require.NotEmpty(t, e.rotate())
		e.sim.Update(graphtest.WithPropagation())
		e.hours(8)
		require.False(t, e.status().Unfinished)
		require.Zero(t, e.own())
		require.Empty(t, e.rotate())
		e.works()
	}, graphtest.WithPropagation(100000))
}

// settles requires that the engine works after a crash, and that in the end the app has
// one credential of the engine's, and none that the engine does not know.
func (e *engine) settles() {
	e.t.Helper()
	e.restart()
	e.works()
	e.hours(10)
	e.works()
	require.Equal(e.t, 1, e.own())
}

// The process is killed at each write of a rotation. An app without a permission cannot
// look for what it has lost: see TestLostCertificate.
func TestRotationIsInterruptedAnywhere(t *testing.T) {
	for _, app := range privileged {
		for n := 1; ; n++ {
			e := start(t, app)
			e.rotate()
			dead := false
			fails := storagetest.Nth(n, "put", config.StorageKey)
			e.storage.FailWhen(func(op, key string) bool {
				dead = dead || fails(op, key)
				return dead
			})
			_, err := e.rotator.Rotate(e.ctx)
			e.storage.FailWhen(nil)
			if err == nil && !dead {
				require.Greater(t, n, 3)
				break
			}
			e.settles()
		}
	}
}

func TestAnswerIsLost(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"reset before the work": {Reset: true},
		"reset after the work":  {Reset: true, AfterWork: true},
		"504 after the work":    {Status: 504, AfterWork: true},
		"truncated":             {Body: graphtest.BodyTruncated},
		"403 of a proxy":        {Status: 403, Body: graphtest.BodyHTML},
		"proxy, after the work": {Status: 403, Body: graphtest.BodyHTML, AfterWork: true},
	} {
		for _, app := range privileged {
			t.Run(app+" "+name, func(t *testing.T) {
				e := start(t, app)
				e.rotate()
				e.loses(fault)
				e.settles()
			})
		}
	}
}

// Graph lists a secret late whose value was lost with the answer. A repetition within
// seconds must not take it for one that was never added.
func TestLostSecretThatIsListedLate(t *testing.T) {
	e := start(t, secret, graphtest.WithListingLag(1))
	e.loses(graphtest.Fault{AfterWork: true, Reset: true})
	until := e.status().Unlisted
	warning := e.rotate()
	require.Contains(t, warning, "not known yet")
	require.Contains(t, warning, until.UTC().Format(time.RFC3339))
	require.True(t, e.status().Unfinished)
	require.Equal(t, 1, e.stored().Root.Failures, "to wait is no further failure")
	require.Equal(t, 1, e.sim.Calls(graphtest.AddPassword).Performed)

	e.restart()
	e.pass(until.Sub(e.now()) - time.Second)
	require.Equal(t, 1, e.sim.Calls(graphtest.AddPassword).Performed, "it is too early")
	e.pass(time.Second)
	require.Equal(t, 2, e.sim.Calls(graphtest.AddPassword).Performed)
	require.Equal(t, 1, e.own(), "the lost one has gone, another one is in use")
	require.False(t, e.status().Unfinished)
	e.works()
}

// A secret that is listed is removed at once, and the rotation begins. Since the removal
// may have been overlooked, it is repeated.
func TestRemovalOfAYoungSecretIsRepeated(t *testing.T) {
	e := start(t, secret)
	e.loses(graphtest.Fault{AfterWork: true, Reset: true})
	e.sim.Inject(graphtest.Fault{Operation: graphtest.RemovePassword, Times: 1, Status: 404})
	require.Empty(t, e.rotate())
	require.Equal(t, 2, e.own())
	e.pass(credential.ListingLag)
	require.Equal(t, 1, e.own())
	require.Zero(t, e.status().Retiring)
	e.works()
}

// A proxy's page proves no removal: the replaced secret is removed later.
func TestRemovalThatAProxyAnswers(t *testing.T) {
	for _, status := range []int{404, 400, 403} {
		e := start(t, secret)
		e.rotate()
		e.rotate()
		e.sim.Inject(graphtest.Fault{Operation: graphtest.RemovePassword, Status: status, Body: graphtest.BodyHTML})
		e.pass(credential.Grace)
		require.Equal(t, 2, e.own())
		require.Equal(t, 1, e.status().Retiring)
		require.Equal(t, 1, e.stored().Root.Failures)
		e.sim.Clear()
		e.hours(1)
		require.Equal(t, 1, e.own())
		require.Zero(t, e.status().Retiring)
		e.works()
	}
}

// What was interrupted is settled when that is possible. No credential is replaced, unless
// a rotation was requested: it is made until Graph refuses it.
func TestSecretThatWasNeverAdded(t *testing.T) {
	refusal := graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 403}
	outage := graphtest.Fault{Operation: graphtest.AddPassword, Times: 1, Status: 429, RetryAfter: "1800"}
	for name, c := range map[string]struct {
		request bool
		faults  []graphtest.Fault
		own     int
	}{
		"not requested":             {false, nil, 0},
		"requested":                 {true, nil, 1},
		"requested during outages":  {true, []graphtest.Fault{outage, outage}, 1},
		"requested what is refused": {true, []graphtest.Fault{refusal}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, secret)
			e.loses(graphtest.Fault{Reset: true})
			if c.request {
				require.NotEmpty(t, e.rotate())
			}
			e.pass(0)
			require.NotEmpty(t, e.status().Of.Name, "it is too early")
			for _, fault := range c.faults {
				e.sim.Inject(fault)
				e.pass(time.Hour)
				require.Empty(t, e.status().Of, "Graph has not begun")
				require.Equal(t, fault.Status == 429, e.status().Unfinished)
				require.NotEmpty(t, e.stored().Root.LastError)
				require.Zero(t, e.own())
			}
			e.pass(time.Hour)
			require.Equal(t, c.own, e.own())
			require.False(t, e.status().Unfinished)
		})
	}
}

// A request that cannot be remembered is refused.
func TestRequestThatCannotBeStored(t *testing.T) {
	e := start(t, secret)
	e.loses(graphtest.Fault{Reset: true})
	e.storage.FailWhen(storagetest.Nth(1, "put", config.StorageKey))
	_, err := e.rotator.Rotate(e.ctx)
	require.ErrorIs(t, err, storagetest.ErrBroken)
}

// What cannot be read or reached is reported, and done later.
func TestWorkThatFails(t *testing.T) {
	for name, fault := range map[string]graphtest.Fault{
		"cannot look":   {Operation: graphtest.Application, Times: 3, Status: 500},
		"cannot remove": {Operation: graphtest.RemovePassword, Times: 3, Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, secret)
			e.loses(graphtest.Fault{AfterWork: true, Reset: true})
			e.sim.Inject(fault)
			_, err := e.rotator.Rotate(e.ctx)
			require.Error(t, err)
			require.Equal(t, 2, e.stored().Root.Failures)
			e.sim.Clear()
			e.hours(1)
			require.Zero(t, e.own())
			require.Zero(t, e.stored().Root.Failures)
		})
	}
}

// meanwhile rotates, and changes the configuration when Entra has added the new credential
// and not answered yet.
func (e *engine) meanwhile(app string, change func()) error {
	e.t.Helper()
	e.sim.Inject(graphtest.Fault{Operation: adding[app], Times: 1, AfterWork: true, Latency: time.Minute})
	answer := make(chan error, 1)
	go func() {
		_, err := e.rotator.Rotate(e.ctx)
		answer <- err
	}()
	require.NoError(e.t, e.sim.Wait(e.t.Context(), adding[app], func(c graphtest.Calls) bool { return c.Performed > 0 }))
	change()
	e.sim.Clear()
	return <-answer
}

// A changed configuration ends the rotation. What has been added by then is removed, or
// named. No client must repeat the request: that would rotate what has been configured.
func TestConfigurationIsChangedMeanwhile(t *testing.T) {
	for _, app := range privileged {
		for name, c := range map[string]struct {
			owner bool
			own   int
			log   string
		}{
			"removed": {true, 0, "INFO.*has been removed from the app.*key_id="},
			"named":   {false, 1, "WARN.*could not be removed from the app.*key_id="},
		} {
			t.Run(app+" "+name, func(t *testing.T) {
				e := start(t, app)
				next := map[string]any{certificate: e.certificate()}
				e.foreign++
				err := e.meanwhile(app, func() {
					e.configure(next)
					e.sim.Update(graphtest.WithOwner(c.owner))
				})
				require.ErrorIs(t, err, rootrotation.ErrReplaced)
				coded, ok := errors.AsType[logical.HTTPCodedError](err)
				require.True(t, ok)
				require.Equal(t, http.StatusBadRequest, coded.Code())
				require.Equal(t, c.own, e.own())
				require.Regexp(t, c.log, e.log.String())
				e.works()
			})
		}
	}
}

// An operator who configures another credential and then the one before again has ended
// the rotation as well: what it has made is on its way out.
func TestConfigurationComesBackMeanwhile(t *testing.T) {
	backAndForth := func(e *engine, app string) {
		first := e.stored().Credential
		other := map[string]any{app: "mistyped", config.FieldVerifyConnection: false}
		if app == certificate {
			other[app] = e.certificate()
			e.foreign++
		}
		e.configure(other)
		e.configure(map[string]any{app: first.Secret + first.Certificate, config.FieldVerifyConnection: false})
	}
	each(t, privileged, func(t *testing.T, e *engine, app string) {
		whileProven := sync.OnceFunc(func() { backAndForth(e, app) })
		e.rotator.Sleep = func(context.Context, time.Duration) error {
			whileProven()
			return nil
		}
		_, err := e.rotator.Rotate(e.ctx)
		require.ErrorIs(t, err, rootrotation.ErrReplaced)
		require.Equal(t, 1, e.status().Retiring, "it does not become current")
		e.pass(credential.ListingLag + time.Second)
		require.Zero(t, e.own())
		e.works()
	})
	t.Run("while a certificate is registered", func(t *testing.T) {
		e := start(t, certificate)
		err := e.meanwhile(certificate, func() { backAndForth(e, certificate) })
		require.ErrorIs(t, err, rootrotation.ErrReplaced)
		require.Zero(t, e.own(), "what was added has been removed")
		e.works()
	})
}

// The operator configures another credential while a rotation is unfinished, or when its
// answer was lost: what the engine has made is removed, and the new credential stays.
func TestConfiguredCredentialEndsARotation(t *testing.T) {
	each(t, privileged, func(t *testing.T, e *engine, app string) {
		require.NotEmpty(t, e.rotate())
		e.sim.Update(graphtest.WithPropagation())
		e.configure(e.byHand(app))
		chosen := e.stored().Credential
		e.hours(10)
		require.Equal(t, chosen, e.stored().Credential)
		require.Zero(t, e.status().Retiring)
		require.Zero(t, e.own())
		e.works()
	}, graphtest.WithPropagation(20))
	t.Run("lost", func(t *testing.T) {
		e := start(t, secret, graphtest.WithListingLag(1))
		e.loses(graphtest.Fault{AfterWork: true, Reset: true})
		require.NotEmpty(t, e.rotate(), "a rotation is requested")
		e.configure(e.byHand(secret))
		chosen := e.stored().Credential
		require.NotEmpty(t, e.status().Of.Name)
		e.hours(1)
		require.False(t, e.status().Unfinished)
		require.Equal(t, chosen, e.stored().Credential)
		require.Equal(t, 1, e.sim.Calls(graphtest.AddPassword).Performed)
	})
}
