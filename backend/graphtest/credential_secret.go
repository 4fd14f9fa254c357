// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/subtle"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"
)

// never is the end that Entra gives to a secret that does not expire.
var never = time.Date(2299, time.December, 31, 0, 0, 0, 0, time.UTC)

// password is a client secret of the application.
type password struct {
	keyID, name, value string
	start, end         time.Time
	// foreign is set for a secret that belongs to another client than the one under
	// test.
	foreign bool
}

func newPassword(name, value string) password {
	return password{keyID: uuid.NewString(), name: name, value: value, start: time.Now(), end: never}
}

// setSecret makes the value the only client secret besides foreign ones.
func (s *settings) setSecret(value string) {
	s.secret = value
	s.passwords = append(foreign(s.passwords), newPassword("configured", value))
}

// foreign returns a new list of the passwords that belong to other clients.
func foreign(passwords []password) []password {
	return slices.DeleteFunc(slices.Clone(passwords), func(p password) bool { return !p.foreign })
}

// checkSecret checks a client_secret. A wrong secret is reported as wrong even if the
// right one has expired.
func (x *exchange) checkSecret(s settings, form url.Values) *refusal {
	given := []byte(form.Get("client_secret"))
	i := slices.IndexFunc(s.passwords, func(p password) bool {
		return subtle.ConstantTimeCompare(given, []byte(p.value)) == 1
	})
	switch {
	case i >= 0 && !s.clock().Before(s.passwords[i].end):
		return &refusal{codeSecretExpired, fmt.Sprintf("The client secret keys of app '%s' are expired.", s.clientID)}
	case i < 0, !x.sim.propagated(s.passwords[i].keyID):
		return &refusal{codeSecretInvalid, fmt.Sprintf("Invalid client secret provided for app '%s'. "+
			"Send the value of the secret, not its id.", s.clientID)}
	default:
		return nil
	}
}
