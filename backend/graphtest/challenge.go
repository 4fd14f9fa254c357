// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// capable reports whether the client has declared that it understands claims challenges:
// as cp1, in any case, since Microsoft's own libraries write it differently.
func (c tokenClaims) capable() bool {
	return slices.ContainsFunc(c.Capabilities, func(name string) bool { return strings.EqualFold(name, "cp1") })
}

// notBefore is the earliest issue time, in Unix seconds, that a claims challenge accepts of
// a new token. Zero means no challenge.
type notBefore int64

func (n notBefore) String() string { return strconv.FormatInt(int64(n), 10) }

// Challenges counts claims challenges.
type Challenges struct {
	Sent     int // to clients that understand them; one token can get many
	Answered int // by a token that was requested with their claims
}

// Challenges returns the counts since the simulator was made.
func (s *Simulator) Challenges() Challenges {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims
}

// challenge revokes the token of the request, like continuous access evaluation, and
// refuses the call.
func (x *exchange) challenge() answer {
	s := x.sim.current()
	var since notBefore
	if token, ok := x.bearer(); ok {
		if claims, err := x.sim.signer.verify(token, s); err == nil {
			since = x.sim.revoke(*claims, notBefore(s.clock().Unix()))
		}
	}
	return x.challengeAnswer(since)
}

// challengeAnswer demands a token that satisfies the challenge. The client must decode the
// challenge's claims before it sends them to Entra. A client that has not declared to
// understand challenges only learns that its token is refused.
func (x *exchange) challengeAnswer(since notBefore) answer {
	a := x.graphError(401, x.fault.Code,
		"Continuous access evaluation resulted in a challenge: the token was issued before it was revoked.")
	if since == 0 {
		return a
	}
	x.sim.countChallenge()
	claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%v"}}}`, since)
	a.header.Set("WWW-Authenticate", fmt.Sprintf(`%s, error="insufficient_claims", claims="%s"`,
		x.authenticateHeader(), base64.StdEncoding.EncodeToString([]byte(claims))))
	return a
}

func (s *Simulator) countChallenge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims.Sent++
}

// revoke refuses a token from now on and returns the time for the challenge, which stays
// the same if the token was already revoked.
func (s *Simulator) revoke(claims tokenClaims, now notBefore) notBefore {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since, revoked := s.revoked[claims.UniqueID]; revoked {
		return since
	}
	if !claims.capable() {
		now = 0
	}
	s.revoked[claims.UniqueID] = now
	if now != 0 {
		s.asked = append(s.asked, now)
	}
	return now
}

func (s *Simulator) revocation(tokenID string) (since notBefore, revoked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, revoked = s.revoked[tokenID]
	return since, revoked
}

// answerChallenge checks a new token while a challenge is open: a token requested with
// the claims of any challenge since then answers them all, because it is newer than every
// token that was revoked. Any other will be challenged as well. The caller holds s.mu.
func (s *Simulator) answerChallenge(token tokenClaims, request claimsRequest) {
	switch {
	case len(s.asked) == 0, !token.capable():
	case slices.ContainsFunc(s.asked, func(n notBefore) bool { return n.String() == request.AccessToken.NotBefore.Value }):
		s.asked = nil
		s.claims.Answered++
	default:
		s.revoked[token.UniqueID] = slices.Max(s.asked)
	}
}
