// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// verdict is what the tenant says of an assumption.
type verdict string

const (
	confirmed verdict = "confirmed"
	refuted   verdict = "refuted"
	notTold   verdict = "not told"
)

// The times that the engine relies on. A watch has to be longer than the life of a POST and
// GET's staleness together.
const (
	watch       = 2 * time.Minute
	postLife    = 45 * time.Second // for which the engine waits for a POST
	verifyLimit = 9 * time.Second  // for sign-in and GET, when a configuration is written
)

// assumption is something that the engine relies on, and how the facts of a run decide it.
type assumption struct {
	id, text string
	decide   func(*facts) (verdict, string)
}

// finding is an assumption that has been decided.
type finding struct {
	assumption
	verdict  verdict
	measured string
}

func judge(f *facts) []finding {
	var found []finding
	for _, a := range assumptions() {
		v, measured := a.decide(f)
		found = append(found, finding{a, v, measured})
	}
	return found
}

// assumptions lists all, in the order of the report.
func assumptions() []assumption {
	list := []assumption{{"token", "The token of an app that has the permission names it among its roles.", tokenNamesPermission}}
	for _, version := range versions {
		at := func(decide func(*versionFacts) (verdict, string)) func(*facts) (verdict, string) {
			return func(f *facts) (verdict, string) { return decide(f.tenant[version]) }
		}
		list = append(list,
			assumption{"shape " + version, version + ": GET and POST answer 200 with one key, where the engine looks for it.", at(shape)},
			assumption{"replaces " + version, version + ": a POST answers with a key that was not the tenant's before.", at(replaces)},
			assumption{"staleness " + version, fmt.Sprintf("%s: %v after a POST has answered, GET no longer names the key before.", version, watch-postLife), at(staleness)},
		)
	}
	return append(list,
		assumption{"one key", "Both versions of the API name the same key.", oneKey},
		assumption{"landing", fmt.Sprintf("A POST whose answer nobody waits for is carried out, and named by GET, within %v (P + S), or not at all.", watch), landing},
		assumption{"time", fmt.Sprintf("A POST is answered within %v, and a GET within %v.", postLife, verifyLimit), inTime},
		assumption{"signed", "Each refusal of Graph has a GUID as request-id, and a JSON error code or our client-request-id.", refusalsSigned},
		assumption{"successes", "Each success has a GUID as request-id.", successesHaveID},
		assumption{"permission", "A missing permission is a signed 403 with an error code.", missingPermission},
		assumption{"unknown path", "A path that Graph does not have is refused with an error code, and with another code than a tenant without a key.", unknownPath},
		assumption{"no key yet", "A tenant that has no key yet answers a GET with a signed 404, or with a 200 without a key, at both versions.", noKeyYet},
		assumption{"throttle", "A 429 says in Retry-After for how long to wait.", throttleSaysHowLong},
		byHand("old key", "A key that was replaced is refused by the sensor's installer at once.",
			"copy the key from the Defender portal before this check, and install a sensor with it right after"),
		byHand("newline", "AccessKeyFile may not end with a newline (the engine's templates write none).",
			"install a sensor from a file that ends with one"),
		byHand("workspace", "A tenant without Defender for Identity refuses the calls with a signed error.",
			"run this check in such a tenant"),
		byHand("limits", "Graph allows more than the some 30 calls a minute of this check.",
			"ask Microsoft's support: no limit is documented"),
	)
}

// byHand is an assumption that this program cannot check.
func byHand(id, text, how string) assumption {
	return assumption{id, text, func(*facts) (verdict, string) { return notTold, "by hand: " + how }}
}

// when returns the verdict of a condition.
func when(holds bool) verdict {
	if holds {
		return confirmed
	}
	return refuted
}

func tokenNamesPermission(f *facts) (verdict, string) {
	worked := slices.ContainsFunc(f.last, answer.named)
	switch {
	case !f.rolesReadable:
		return refuted, "the token cannot be read"
	case f.permitted && worked:
		return confirmed, "named; GET works"
	case f.permitted:
		return notTold, "named; GET does not work: " + texts(f.last)
	case worked:
		return refuted, "not named, and GET works nevertheless"
	default:
		return notTold, "not named: the app does not have " + graph.Permission
	}
}

func shape(v *versionFacts) (verdict, string) {
	for _, a := range []answer{v.read, v.post} {
		if a.status != http.StatusOK {
			return notTold, a.String()
		}
	}
	measured := fmt.Sprintf("GET: %s. POST: %s. The key: %s", v.read.fields, v.post.fields, v.post.keyForm)
	known := v.read.known && v.post.known
	if v.engine != nil {
		measured += ". The engine: " + v.engine.Error()
		if e, ok := errors.AsType[*graph.Error](v.engine); known && ok && e.Status != http.StatusOK {
			return notTold, measured // its GET failed before it looked for the key
		}
	}
	return when(known && v.engine == nil), measured
}

func replaces(v *versionFacts) (verdict, string) {
	if !v.before.named() || !v.post.named() {
		return notTold, v.before.String() + "; " + v.post.String()
	}
	return when(v.replaced), fmt.Sprintf("another key: %v", v.replaced)
}

func staleness(v *versionFacts) (verdict, string) {
	switch s := v.after; {
	case s == nil:
		return notTold, "there was no new key to look for: " + v.post.String()
	case s.others > 0:
		return notTold, s.String() + ": does another program regenerate the key?"
	default:
		return s.within(watch - postLife)
	}
}

func landing(f *facts) (verdict, string) {
	switch s := f.hungUp; {
	case s == nil:
		return notTold, "the POST did not leave, or GET named no key before it"
	case s.lastNamed < watch:
		return notTold, "reads failed: " + s.String()
	case s.firstNew < 0:
		return notTold, "not carried out: " + s.String()
	case s.others > 0:
		return notTold, s.String() + ": does another program regenerate the key?"
	default:
		return s.within(watch)
	}
}

// within decides whether GET named the earlier key for less than limit. Without a name at or
// after it, or of the new key before it while reads failed, the reads tell nothing.
func (s *series) within(limit time.Duration) (verdict, string) {
	late := s.firstNew < 0 || s.firstNew >= limit
	if s.lastOld < limit && (s.lastNamed < limit || late && s.failed > 0) {
		return notTold, s.String()
	}
	return when(!late && s.lastOld < limit), s.String()
}

func (s *series) String() string {
	named := func(at time.Duration) string {
		if at < 0 {
			return "never"
		}
		return "after " + at.Round(time.Millisecond).String()
	}
	text := fmt.Sprintf("new key first named %s, earlier key last named %s", named(s.firstNew), named(s.lastOld))
	for _, count := range []struct {
		n    int
		what string
	}{{s.back, "times the earlier one after the new one"}, {s.others, "times a third key"}, {s.failed, "failed"}} {
		if count.n > 0 {
			text += fmt.Sprintf(", %d %s", count.n, count.what)
		}
	}
	return fmt.Sprintf("%s (%d reads in %s)", text, s.reads, s.lasted.Round(time.Second))
}

func oneKey(f *facts) (verdict, string) {
	for _, a := range f.last {
		if !a.named() {
			return notTold, a.String()
		}
	}
	same := f.last[0].key == f.last[1].key
	return when(same), fmt.Sprintf("the same: %v", same)
}

func inTime(f *facts) (verdict, string) {
	var post time.Duration
	posted := true
	for _, version := range versions {
		a := f.tenant[version].post
		post, posted = max(post, a.took), posted && a.status/100 == 2
	}
	measured := fmt.Sprintf("the slowest POST %s, the slowest GET %s, each POST carried out: %v, GETs without an answer: %d",
		post.Round(time.Millisecond), f.slowestGET.Round(time.Millisecond), posted, f.missingGETs)
	switch {
	case post > postLife || f.slowestGET > verifyLimit:
		return refuted, measured
	case !posted || f.missingGETs > 0 || f.namedGETs == 0: // a failure can be quicker than the call
		return notTold, measured
	default:
		return confirmed, measured
	}
}

func refusalsSigned(f *facts) (verdict, string) {
	unsigned := slices.DeleteFunc(slices.Clone(f.refusals), answer.signed)
	switch {
	case len(f.refusals) == 0:
		return notTold, "nothing was refused"
	case len(unsigned) == 0:
		return confirmed, fmt.Sprintf("%d refusals, all signed", len(f.refusals))
	case slices.ContainsFunc(unsigned, func(a answer) bool { return !a.transient() }):
		return refuted, "not signed: " + texts(unsigned)
	default:
		return notTold, "not signed, and perhaps of a proxy: " + texts(unsigned)
	}
}

func successesHaveID(f *facts) (verdict, string) {
	n := 0
	for _, a := range f.successes() {
		if a.requestID != "GUID" {
			return refuted, a.String() + ": request-id " + a.requestID
		}
		n++
	}
	if n == 0 {
		return notTold, "there was none"
	}
	return confirmed, fmt.Sprintf("%d of %d", n, n)
}

func (f *facts) successes() []answer {
	all := slices.Clone(f.last)
	for _, version := range versions {
		all = append(all, f.tenant[version].before, f.tenant[version].post)
	}
	return slices.DeleteFunc(all, func(a answer) bool { return a.status != http.StatusOK })
}

func missingPermission(f *facts) (verdict, string) {
	var other string
	if f.otherApp != nil {
		other = "; of the other app, " + f.otherApp.Error()
	}
	if len(f.forbidden) == 0 {
		if other == "" {
			other = ": give a second app that has no permission (-other-client-id), or take the permission for the package from the app"
		}
		return notTold, "nothing was refused for lack of a permission" + other
	}
	for _, a := range f.forbidden {
		if a.status != http.StatusForbidden || !a.signed() || a.code == "" {
			return refuted, a.String() + ", signed: " + fmt.Sprint(a.signed())
		}
	}
	return confirmed, texts(f.forbidden) + other
}

func texts(answers []answer) string {
	var all []string
	for _, a := range answers {
		all = append(all, a.String())
	}
	return strings.Join(all, "; ")
}

func unknownPath(f *facts) (verdict, string) {
	v := confirmed
	for _, a := range f.unknown {
		first := f.first[a.version]
		same := first.status == a.status && first.code == a.code
		keyless := first.status == http.StatusNotFound || first.status == http.StatusBadRequest
		switch {
		case a.transient():
			v = notTold
		case a.code == "", same && keyless:
			return refuted, a.String()
		case same: // for the lack of a permission, say: neither the path nor the key decided it
			v = notTold
		}
	}
	return v, texts(f.unknown)
}

func noKeyYet(f *facts) (verdict, string) {
	first := []answer{f.first[versions[0]], f.first[versions[1]]}
	switch {
	case !f.permitted || slices.ContainsFunc(first, answer.named):
		return notTold, "the tenant had a key before, or the app lacks the permission"
	case slices.ContainsFunc(first, answer.transient):
		return notTold, texts(first)
	case !f.last[0].named() || !f.last[1].named(): // the lack of a key need not be the reason
		return notTold, "GET named no key afterwards either: " + texts(f.last)
	}
	says := func(a answer) bool {
		return a.status == http.StatusNotFound && a.signed() || a.status == http.StatusOK && a.isJSON
	}
	return when(says(first[0]) && says(first[1]) && first[0].status == first[1].status), texts(first)
}

func throttleSaysHowLong(f *facts) (verdict, string) {
	if len(f.throttled) == 0 {
		return notTold, fmt.Sprintf("none of %d calls was throttled", f.calls)
	}
	for _, a := range f.throttled {
		if a.retryAfter == "" || a.retryAfter == "malformed" {
			return refuted, a.String() + " without Retry-After"
		}
	}
	return confirmed, fmt.Sprintf("%d times, the first: Retry-After %s", len(f.throttled), f.throttled[0].retryAfter)
}
