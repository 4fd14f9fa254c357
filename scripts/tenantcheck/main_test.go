// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// manual are the assumptions that only a person can check.
var manual = []string{"old key", "newline", "workspace", "limits"}

// unseen are told only by a tenant, or a run, to which something particular happens.
var unseen = []string{"permission", "no key yet", "throttle"}

func TestTheSimulatorAsItIs(t *testing.T) {
	w := newWorld(t)
	r := w.check()
	require.NoError(t, r.err)
	for _, a := range assumptions() {
		want := confirmed
		if slices.Contains(append(slices.Clone(manual), unseen...), a.id) {
			want = notTold
		}
		require.Equal(t, want, r.verdicts[a.id], "%s: %s", a.id, r.measured[a.id])
	}
	require.Equal(t, 3, w.sim.Calls(graphtest.Regenerate).Performed, "as it has said")
	require.Less(t, len(r.report), 10_000, "it fits into an issue")
	app := w.sim.App()
	for _, id := range []string{app.TenantID, app.ClientID} {
		require.NotContains(t, r.report, id)
	}
	require.Contains(t, r.measured["staleness v1.0"], "new key first named after 0s, earlier key last named never")
	require.Contains(t, r.measured["shape beta"], "88 characters, base64")
}

// late returns a Graph whose GET names an earlier key for so long after a POST.
func late(d time.Duration, posts ...int) func(*world, call, *httptest.ResponseRecorder) {
	return func(w *world, c call, answer *httptest.ResponseRecorder) {
		if key, since := w.previous(); c.reads() && key != "" && since < d && (len(posts) == 0 || slices.Contains(posts, w.posts)) {
			replaceIn(answer, w.sim.Key(), key)
		}
	}
}

// only applies a change to the answers of some calls.
func only(which func(call) bool, change func(answer *httptest.ResponseRecorder)) func(*world, call, *httptest.ResponseRecorder) {
	return func(_ *world, c call, answer *httptest.ResponseRecorder) {
		if which(c) {
			change(answer)
		}
	}
}

func withoutHeader(names ...string) func(*httptest.ResponseRecorder) {
	return func(answer *httptest.ResponseRecorder) {
		for _, name := range names {
			answer.Header().Del(name)
		}
	}
}

// becomes replaces an answer's status and body, and keeps its headers.
func becomes(status int, text string) func(*httptest.ResponseRecorder) {
	return func(answer *httptest.ResponseRecorder) {
		answer.Code, answer.Body = status, bytes.NewBufferString(text)
	}
}

func at(version string, which func(call) bool) func(call) bool {
	return func(c call) bool { return c.version == version && which(c) }
}

func refusedWithoutToken(c call) bool { return !c.authorized }
func unknown(c call) bool             { return c.name == "noSuchFunction" }
func packages(c call) bool            { return c.name == graph.OpPackage }

const (
	withoutKey = `{"deploymentAccessKey": null}`
	notFound   = `{"error": {"code": "itemNotFound", "message": "hunter2"}}`
	forbidden  = `{"error": {"code": "Forbidden", "message": "hunter2"}}`
	page       = "<html><body>No such page</body></html>"
)

// noKeyUntil answers GETs as a tenant does that has no key until the first POST.
func noKeyUntil(status map[string]int, text string) func(*world, call) (int, string, bool) {
	return func(w *world, c call) (int, string, bool) {
		return status[c.version], text, c.reads() && w.posts == 0
	}
}

func both(status int) map[string]int { return map[string]int{graph.V1: status, graph.Beta: status} }

// Each assumption broken in each way that matters, and what the report says of it.
var broken = map[string]struct {
	change func(*world)
	want   map[string]verdict
}{
	"the token does not name the permission": {
		func(w *world) {
			w.roles = []string{"Another.Role"}
			w.instead = func(w *world, c call) (int, string, bool) {
				switch {
				case c.reads():
					return 200, body(map[string]any{"deploymentAccessKey": w.sim.Key()}), true
				case c.regenerates():
					return 200, body(map[string]any{"deploymentAccessKey": w.sim.RegenerateInPortal()}), true
				}
				return 0, "", false
			}
		}, map[string]verdict{"token": refuted},
	},
	"the app lacks the permission": {
		func(w *world) { w.roles = []string{graphtest.RoleRead} },
		map[string]verdict{"token": notTold, "permission": confirmed, "staleness v1.0": notTold, "landing": notTold, "replaces beta": notTold},
	},
	"beta names the key otherwise": {
		func(w *world) {
			w.after = only(func(c call) bool { return c.version == graph.Beta }, func(a *httptest.ResponseRecorder) {
				replaceIn(a, "sensorDeploymentAccessKey", "onboardingAccessKey")
				replaceIn(a, `"deploymentAccessKey"`, `"onboardingAccessKey"`)
			})
		}, map[string]verdict{"shape beta": refuted, "shape v1.0": confirmed, "staleness beta": confirmed},
	},
	"v1.0 has the key in a list": {
		func(w *world) {
			w.instead = func(w *world, c call) (int, string, bool) {
				return 200, body(map[string]any{"value": []any{map[string]any{"deploymentAccessKey": w.sim.Key()}}}), c.version == graph.V1 && c.reads()
			}
		}, map[string]verdict{"shape v1.0": refuted, "shape beta": confirmed},
	},
	"v1.0 answers the POST with 204": {
		func(w *world) {
			w.after = only(at(graph.V1, call.regenerates), becomes(204, ""))
		}, map[string]verdict{"shape v1.0": notTold, "replaces v1.0": notTold, "staleness v1.0": notTold, "shape beta": confirmed},
	},
	"keys are longer than the engine takes": {
		func(w *world) {
			w.sim.Update(graphtest.WithKey(strings.Repeat("a", 5000)))
			w.instead = func(w *world, c call) (int, string, bool) {
				if c.regenerates() {
					w.sim.Update(graphtest.WithKey(strings.Repeat("abcdefg"[c.post:c.post+1], 5000)))
				}
				return 200, body(map[string]any{"deploymentAccessKey": w.sim.Key()}), c.regenerates() || c.reads()
			}
		}, map[string]verdict{"shape v1.0": refuted, "shape beta": refuted, "replaces v1.0": confirmed},
	},
	"a POST of beta changes nothing": {
		func(w *world) {
			w.instead = func(w *world, c call) (int, string, bool) {
				return 200, body(map[string]any{"deploymentAccessKey": w.sim.Key()}), c.regenerates() && c.version == graph.Beta
			}
		}, map[string]verdict{"replaces beta": refuted, "staleness beta": notTold, "replaces v1.0": confirmed},
	},
	"a POST of v1.0 changes nothing": {
		func(w *world) {
			w.instead = func(w *world, c call) (int, string, bool) {
				return 200, body(map[string]any{"deploymentAccessKey": w.sim.Key()}), c.regenerates() && c.version == graph.V1
			}
		}, map[string]verdict{"replaces v1.0": refuted, "staleness v1.0": notTold, "replaces beta": confirmed, "landing": notTold},
	},
	"GET lags by 20 seconds": {
		func(w *world) { w.after = late(20 * time.Second) },
		map[string]verdict{"staleness v1.0": confirmed, "staleness beta": confirmed, "landing": confirmed},
	},
	"GET lags by 90 seconds": {
		func(w *world) { w.after = late(90 * time.Second) },
		map[string]verdict{"staleness v1.0": refuted, "staleness beta": refuted, "landing": confirmed},
	},
	"GET lags for ever": {
		func(w *world) { w.after = late(time.Hour) },
		map[string]verdict{"staleness v1.0": refuted, "staleness beta": refuted, "landing": notTold},
	},
	"GETs fail soon after a POST, for good": {
		func(w *world) { w.after = failing(time.Second, time.Hour) },
		map[string]verdict{"staleness v1.0": notTold, "staleness beta": notTold, "landing": notTold},
	},
	"GETs fail for a while after a POST": {
		func(w *world) { w.after = failing(time.Second, time.Minute) },
		map[string]verdict{"staleness v1.0": confirmed, "staleness beta": confirmed, "landing": confirmed},
	},
	"each GET fails after a POST": {
		func(w *world) { w.after = failing(0, time.Hour) },
		map[string]verdict{"staleness v1.0": notTold, "landing": notTold},
	},
	"GET goes back after a while": {
		func(w *world) {
			w.after = func(w *world, c call, answer *httptest.ResponseRecorder) {
				if key, since := w.previous(); c.reads() && since > 80*time.Second && since < 100*time.Second {
					replaceIn(answer, w.sim.Key(), key)
				}
			}
		}, map[string]verdict{"staleness v1.0": refuted, "staleness beta": refuted},
	},
	"somebody else regenerates": {
		func(w *world) {
			w.after = func(w *world, c call, _ *httptest.ResponseRecorder) {
				if c.reads() && c.get%10 == 0 {
					w.sim.RegenerateInPortal()
				}
			}
		}, map[string]verdict{"staleness v1.0": notTold, "landing": notTold},
	},
	"the versions name two keys": {
		func(w *world) {
			w.after = func(w *world, c call, answer *httptest.ResponseRecorder) {
				if c.version == graph.Beta && c.reads() {
					replaceIn(answer, w.sim.Key(), "x"+w.sim.Key()[1:])
				}
			}
		}, map[string]verdict{"one key": refuted},
	},
	"a POST without a waiting client lands after two and a half minutes": {
		func(w *world) { w.holds = holdThird(150 * time.Second) },
		map[string]verdict{"landing": refuted, "staleness v1.0": confirmed},
	},
	"it lands after 40 seconds": {
		func(w *world) { w.holds = holdThird(40 * time.Second) },
		map[string]verdict{"landing": confirmed},
	},
	"it never lands": {
		func(w *world) { w.holds = holdThird(time.Hour) },
		map[string]verdict{"landing": notTold},
	},
	"a POST takes 46 seconds": {
		func(w *world) { w.after = slow(call.regenerates, 46*time.Second) },
		map[string]verdict{"time": refuted},
	},
	"a GET takes 10 seconds": {
		func(w *world) { w.after = slow(call.reads, 10*time.Second) },
		map[string]verdict{"time": refuted},
	},
	"a GET after the POST that nobody waits for takes 10 seconds": {
		func(w *world) {
			w.after = func(w *world, c call, a *httptest.ResponseRecorder) {
				slow(func(c call) bool { return c.reads() && w.posts == 3 }, 10*time.Second)(w, c, a)
			}
		}, map[string]verdict{"time": refuted},
	},
	"GETs get no answer within 50 seconds": {
		func(w *world) { w.after = lost(early, 50*time.Second) },
		map[string]verdict{"time": refuted, "no key yet": notTold},
	},
	"GETs are cut off at once": {
		func(w *world) { w.after = lost(early, 0) },
		map[string]verdict{"time": notTold, "no key yet": notTold},
	},
	"a POST is refused at once": {
		func(w *world) { w.after = only(at(graph.Beta, call.regenerates), becomes(403, forbidden)) },
		map[string]verdict{"time": notTold, "replaces beta": notTold},
	},
	"a POST of beta changes nothing, after a GET that fails": {
		func(w *world) {
			w.instead = func(w *world, c call) (int, string, bool) {
				if c.version == graph.Beta && c.reads() && w.posts == 1 {
					return 404, notFound, true
				}
				return 200, body(map[string]any{"deploymentAccessKey": w.sim.Key()}), c.version == graph.Beta && c.regenerates()
			}
		}, map[string]verdict{"replaces beta": notTold, "staleness beta": notTold, "replaces v1.0": confirmed},
	},
	"the engine's own GET is refused": {
		func(w *world) {
			var ours string // the token of the first GET, which the engine does not have
			w.after = only(func(c call) bool {
				token := c.request.Header.Get("Authorization")
				if c.get == 1 {
					ours = token
				}
				return c.reads() && token != ours
			}, becomes(403, forbidden))
		}, map[string]verdict{"shape v1.0": notTold, "shape beta": notTold},
	},
	"refusals of a proxy": {
		func(w *world) {
			w.after = only(refusedWithoutToken, func(a *httptest.ResponseRecorder) {
				withoutHeader("Request-Id", "Client-Request-Id")(a)
				becomes(503, page)(a)
			})
		}, map[string]verdict{"signed": notTold},
	},
	"no refusal arrives": {
		func(w *world) {
			w.after = lost(func(c call) bool { return !c.reads() && !c.regenerates() && !packages(c) }, 0)
		}, map[string]verdict{"signed": notTold, "unknown path": notTold},
	},
	"refusals without request-id": {
		func(w *world) { w.after = only(refusedWithoutToken, withoutHeader("Request-Id")) },
		map[string]verdict{"signed": refuted},
	},
	"a request-id that is no GUID": {
		func(w *world) {
			w.after = only(refusedWithoutToken, func(a *httptest.ResponseRecorder) { a.Header().Set("Request-Id", "7") })
		}, map[string]verdict{"signed": refuted},
	},
	"refusals with neither code nor client-request-id": {
		func(w *world) {
			w.after = only(refusedWithoutToken, func(a *httptest.ResponseRecorder) {
				withoutHeader("Client-Request-Id")(a)
				becomes(401, page)(a)
			})
		}, map[string]verdict{"signed": refuted},
	},
	"refusals with a code, and without client-request-id": {
		func(w *world) { w.after = only(refusedWithoutToken, withoutHeader("Client-Request-Id")) },
		map[string]verdict{"signed": confirmed},
	},
	"successes without request-id": {
		func(w *world) { w.after = only(call.reads, withoutHeader("Request-Id")) },
		map[string]verdict{"successes": refuted, "signed": confirmed},
	},
	"a missing permission is a 403": {
		func(w *world) { w.roles = []string{graphtest.RoleReadWrite} },
		map[string]verdict{"permission": confirmed, "token": confirmed},
	},
	"a missing permission is a 401": {
		func(w *world) {
			w.roles = []string{graphtest.RoleReadWrite}
			w.after = only(packages, becomes(401, `{"error": {"code": "Unauthorized"}}`))
		}, map[string]verdict{"permission": refuted},
	},
	"a missing permission is a 403 without a code": {
		func(w *world) {
			w.roles = []string{graphtest.RoleReadWrite}
			w.after = only(packages, becomes(403, page))
		}, map[string]verdict{"permission": refuted},
	},
	"another app without permission, which Graph takes for one that has it": {
		func(w *world) { w.otherApp() },
		map[string]verdict{"permission": notTold},
	},
	"another app without permission, refused with 403": {
		func(w *world) {
			w.otherApp()
			w.after = only(byOtherApp, becomes(403, forbidden))
		}, map[string]verdict{"permission": confirmed, "staleness v1.0": confirmed},
	},
	"another app without permission, refused with 404": {
		func(w *world) {
			w.otherApp()
			w.after = only(byOtherApp, becomes(404, forbidden))
		}, map[string]verdict{"permission": refuted},
	},
	"another app's sign-in fails, and the package is forbidden": {
		func(w *world) {
			w.roles = []string{graphtest.RoleReadWrite}
			w.otherApp()
			w.file("other", "wrong")
		}, map[string]verdict{"permission": confirmed},
	},
	"the package is refused to an app that has the permission": {
		func(w *world) { w.after = only(packages, becomes(403, page)) },
		map[string]verdict{"permission": notTold},
	},
	"there is no package": {
		func(w *world) { w.after = only(packages, becomes(404, notFound)) },
		map[string]verdict{"permission": notTold},
	},
	"there is no package for an app without the permission either": {
		func(w *world) {
			w.roles = []string{graphtest.RoleReadWrite}
			w.after = only(packages, becomes(404, notFound))
		}, map[string]verdict{"permission": notTold},
	},
	"a tenant without a key, and another app that gets the same 404": {
		func(w *world) {
			w.otherApp()
			w.instead = noKeyUntil(both(404), notFound)
		}, map[string]verdict{"permission": notTold, "no key yet": confirmed},
	},
	"a tenant without a key, and an app without permission": {
		func(w *world) {
			w.roles = []string{graphtest.RoleRead}
			w.instead = noKeyUntil(both(404), notFound)
		}, map[string]verdict{"permission": notTold, "no key yet": notTold},
	},
	"no GET ever finds a key": {
		func(w *world) { w.after = only(call.reads, becomes(404, notFound)) },
		map[string]verdict{"no key yet": notTold, "token": notTold, "time": notTold, "shape v1.0": notTold, "replaces v1.0": notTold, "landing": notTold},
	},
	"the last GETs fail": {
		func(w *world) {
			w.after = func(w *world, c call, a *httptest.ResponseRecorder) {
				if _, since := w.previous(); c.reads() && w.posts == 3 && since > pollAfterHangUp {
					becomes(503, page)(a)
				}
			}
		}, map[string]verdict{"token": notTold, "one key": notTold, "landing": confirmed},
	},
	"an app without permission, which gets the same 403 from an unknown path": {
		func(w *world) {
			w.roles = []string{graphtest.RoleRead}
			w.after = only(func(c call) bool { return unknown(c) || c.reads() }, becomes(403, forbidden))
		}, map[string]verdict{"unknown path": notTold, "permission": confirmed},
	},
	"an unknown path is a page": {
		func(w *world) { w.after = only(unknown, becomes(404, page)) },
		map[string]verdict{"unknown path": refuted},
	},
	"a tenant without a key is like an unknown path": {
		func(w *world) {
			w.instead = noKeyUntil(both(404), notFound)
			w.after = only(unknown, becomes(404, notFound))
		}, map[string]verdict{"unknown path": refuted, "no key yet": confirmed, "staleness v1.0": confirmed},
	},
	"a tenant without a key, 404": {
		func(w *world) { w.instead = noKeyUntil(both(404), notFound) },
		map[string]verdict{"no key yet": confirmed, "shape v1.0": confirmed, "replaces v1.0": notTold, "replaces beta": confirmed},
	},
	"a tenant without a key, 200": {
		func(w *world) { w.instead = noKeyUntil(both(200), withoutKey) },
		map[string]verdict{"no key yet": confirmed, "shape v1.0": confirmed},
	},
	"a tenant without a key, 400": {
		func(w *world) { w.instead = noKeyUntil(both(400), notFound) },
		map[string]verdict{"no key yet": refuted},
	},
	"a tenant without a key, otherwise at beta": {
		func(w *world) {
			w.instead = noKeyUntil(map[string]int{graph.V1: 404, graph.Beta: 400}, notFound)
		}, map[string]verdict{"no key yet": refuted},
	},
	"Graph throttles, and says how long": {
		func(w *world) { w.after = throttled("41") },
		map[string]verdict{"throttle": confirmed, "staleness v1.0": confirmed},
	},
	"Graph throttles, and does not say how long": {
		func(w *world) { w.after = throttled("") },
		map[string]verdict{"throttle": refuted},
	},
	"Retry-After is neither a number nor a date": {
		func(w *world) { w.after = throttled("soon") },
		map[string]verdict{"throttle": refuted},
	},
}

// otherApp names an app without permission. The simulator has only one, so it is that.
func (w *world) otherApp() {
	app := w.sim.App()
	w.flags = []string{"-other-client-id", app.ClientID, "-other-secret-file", w.file("other", app.ClientSecret)}
}

// byOtherApp are its reads, which follow the first one of each version.
func byOtherApp(c call) bool { return c.get == 3 || c.get == 4 }

// holdThird keeps the POST whose client hangs up.
func holdThird(d time.Duration) func(*world, call) time.Duration {
	return func(_ *world, c call) time.Duration {
		if c.post == 3 {
			return d
		}
		return 0
	}
}

func slow(which func(call) bool, d time.Duration) func(*world, call, *httptest.ResponseRecorder) {
	return func(w *world, c call, _ *httptest.ResponseRecorder) {
		if which(c) {
			w.clock.advance(d)
		}
	}
}

// lost cuts the connection of some calls, after a while.
func lost(which func(call) bool, d time.Duration) func(*world, call, *httptest.ResponseRecorder) {
	return func(w *world, c call, _ *httptest.ResponseRecorder) {
		if which(c) {
			w.clock.advance(d)
			panic(http.ErrAbortHandler)
		}
	}
}

// early are the first GETs of both versions.
func early(c call) bool { return c.get == 1 || c.get == 2 }

// failing refuses the GETs from one time after a POST to another, but not those that follow
// the poll, without which the next POST is not sent.
func failing(from, to time.Duration) func(*world, call, *httptest.ResponseRecorder) {
	return func(w *world, c call, answer *httptest.ResponseRecorder) {
		key, since := w.previous()
		to := to
		if w.posts < 3 {
			to = min(to, pollFor+time.Second)
		}
		if c.reads() && key != "" && since >= from && since < to {
			becomes(503, page)(answer)
		}
	}
}

// throttled refuses one GET of a poll.
func throttled(retryAfter string) func(*world, call, *httptest.ResponseRecorder) {
	return func(_ *world, c call, answer *httptest.ResponseRecorder) {
		if c.get == 8 {
			becomes(http.StatusTooManyRequests, `{"error": {"code": "TooManyRequests"}}`)(answer)
			if retryAfter != "" {
				answer.Header().Set("Retry-After", retryAfter)
			}
		}
	}
}

// An answer that the moment decides tells nothing of what was asked, whichever call gets it.
func TestATransientAnswerTellsNothing(t *testing.T) {
	calls := map[string]struct {
		which func(call) bool
		id    string
	}{
		"the first GET of v1.0": {func(c call) bool { return c.get == 1 }, "no key yet"},
		"the first GET of beta": {func(c call) bool { return c.get == 2 }, "no key yet"},
		"the package":           {packages, "permission"},
		"the other app's GET":   {byOtherApp, "permission"},
		"an unknown path":       {unknown, "unknown path"},
		"both":                  {func(c call) bool { return early(c) || unknown(c) }, "unknown path"},
	}
	for name, c := range calls {
		for trouble, change := range map[string]func(*world, call, *httptest.ResponseRecorder){
			"no answer": lost(c.which, 0),
			"429":       only(c.which, becomes(429, `{"error": {"code": "TooManyRequests"}}`)),
			"500":       only(c.which, becomes(500, page)),
			"503":       only(c.which, becomes(503, `{"error": {"code": "ServiceUnavailable"}}`)),
		} {
			t.Run(name+", "+trouble, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.otherApp()
				if c.id == "permission" && name == "the package" {
					w.roles, w.flags = []string{graphtest.RoleReadWrite}, nil
				}
				w.after = change
				r := w.check()
				require.Equal(t, notTold, r.verdicts[c.id], r.measured[c.id])
			})
		}
	}
}

func TestTheReportSaysWhatFailed(t *testing.T) {
	w := newWorld(t)
	w.after = failing(0, time.Hour)
	require.Contains(t, w.check().measured["landing"], "reads failed")

	w = newWorld(t)
	w.otherApp()
	w.file("other", "wrong")
	r := w.check()
	require.Equal(t, notTold, r.verdicts["permission"])
	require.Contains(t, r.measured["permission"], "of the other app, the sign-in failed (HTTP 401")
	require.NotContains(t, r.measured["permission"], "give a second app")
}

// Editors add line ends and a byte-order mark, and both apps can have the same file.
func TestFilesAsEditorsWriteThem(t *testing.T) {
	w := newWorld(t)
	file := w.file("edited", "\uFEFF"+w.sim.App().ClientSecret+"\r\n")
	w.otherApp()
	w.flags = append(w.flags, "-secret-file", file, "-other-secret-file", file)
	r := w.check()
	require.NoError(t, r.err)
	require.Contains(t, r.measured["permission"], "give a second app", "both have signed in")

	for _, flag := range []string{"-secret-file", "-other-secret-file"} {
		w.flags = append(w.flags, flag, w.file("damaged", "hunter2\u200B"))
		r = w.check()
		require.ErrorContains(t, r.err, flag+" contains")
		require.NotContains(t, r.err.Error(), "hunter2")
		w.flags = append(w.flags, flag, file)
	}
}

func TestEachBrokenAssumptionIsReported(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b.change(w)
			r := w.check()
			anyRefuted := false
			for _, v := range r.verdicts {
				anyRefuted = anyRefuted || v == refuted
			}
			require.Equal(t, anyRefuted, r.err == errRefuted, "%v", r.err) //nolint:errorlint // it is returned naked
			for id, want := range b.want {
				require.Equal(t, want, r.verdicts[id], "%s: %s\n%s", id, r.measured[id], r.report)
			}
			require.NotContains(t, r.report, "hunter2", "messages of Graph are not repeated")
		})
	}
}

// An assumption that is added needs a world in which it is refuted, unless only a person can check it, and one
// in which it is confirmed.
func TestEachAssumptionIsBrokenSomewhere(t *testing.T) {
	for _, a := range assumptions() {
		if slices.Contains(manual, a.id) {
			continue
		}
		for _, wanted := range []verdict{refuted, confirmed} {
			found := wanted == confirmed && !slices.Contains(unseen, a.id) // by the simulator as it is
			for _, b := range broken {
				found = found || b.want[a.id] == wanted
			}
			require.True(t, found, "no world in which %q is %s", a.id, wanted)
		}
	}
}

func TestNothingIsSentUnlessThePersonNamesTheTenant(t *testing.T) {
	for _, input := range []string{"", "\n", "yes\n", "y", "00000000-0000-0000-0000-000000000000\n"} {
		w := newWorld(t)
		app := w.sim.App()
		var out, notes bytes.Buffer
		err := run(t.Context(), []string{
			"-tenant-id", app.TenantID, "-client-id", app.ClientID, "-secret-file", w.file("secret", app.ClientSecret),
			"-graph-endpoint", w.graph.URL, "-authority-host", w.sim.URL(), "-ca-certificate-file", w.file("ca", w.sim.CACertificate()),
		}, terminal{strings.NewReader(input), &out, &notes}, w.clock)
		require.ErrorContains(t, err, "nothing has been sent")
		require.Contains(t, notes.String(), "regenerates the sensor deployment access key three times")
		require.Empty(t, out.String())
		require.Zero(t, w.sim.Calls(graphtest.Token).Started+w.sim.Calls(graphtest.Discovery).Started)
	}
}

func TestASignInThatFailsRegeneratesNothing(t *testing.T) {
	w := newWorld(t)
	w.sim.Update(graphtest.WithExpiredSecret())
	r := w.check()
	require.ErrorContains(t, r.err, "nothing has been regenerated")
	require.ErrorContains(t, r.err, "AADSTS7000222")
	require.Empty(t, r.report)
	require.Zero(t, w.sim.Calls(graphtest.Regenerate).Started)
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	file := w.file("secret", "x")
	for name, arguments := range map[string][]string{
		"nothing":               nil,
		"no secret":             {"-tenant-id", "x", "-client-id", "x"},
		"file is missing":       {"-tenant-id", "x", "-client-id", "x", "-secret-file", file + "-missing"},
		"unknown cloud":         {"-tenant-id", "x", "-client-id", "x", "-secret-file", file, "-environment", "x"},
		"http":                  {"-tenant-id", "x", "-client-id", "x", "-secret-file", file, "-graph-endpoint", "http://x"},
		"other without secret":  {"-tenant-id", "x", "-client-id", "x", "-secret-file", file, "-other-client-id", "x"},
		"an argument":           {"-tenant-id", "x", "-client-id", "x", "-secret-file", file, "now"},
		"an empty secret":       {"-tenant-id", "x", "-client-id", "x", "-secret-file", w.file("empty", "")},
		"another cloud's Graph": {"-tenant-id", "x", "-client-id", "x", "-secret-file", file, "-graph-endpoint", "https://graph.microsoft.us"},
	} {
		var out, notes bytes.Buffer
		require.Error(t, run(t.Context(), arguments, terminal{strings.NewReader("x\n"), &out, &notes}, w.clock), name)
		require.Empty(t, out.String(), name)
	}
}

// Ctrl-C ends a run between two reads of the key.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	w.after = func(_ *world, c call, _ *httptest.ResponseRecorder) {
		if c.get > 10 {
			stop()
		}
	}
	r := w.checkUntil(ctx)
	require.ErrorIs(t, r.err, context.Canceled)
	require.Empty(t, r.report)
	require.Equal(t, 1, w.sim.Calls(graphtest.Regenerate).Performed)
}
