// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/subtle"
	"fmt"
	"net/url"
)

// clientSecret is the application's password.
type clientSecret struct {
	value   string
	expired bool
}

// checkSecret checks the credential of kind client_secret. A wrong secret is
// wrong even if the right one has expired.
func checkSecret(s settings, form url.Values) *refusal {
	given := form.Get("client_secret")
	switch {
	case subtle.ConstantTimeCompare([]byte(given), []byte(s.secret.value)) == 0:
		return &refusal{codeSecretInvalid, fmt.Sprintf("Invalid client secret provided for app '%s'. "+
			"Send the value of the secret, not its id.", s.clientID)}
	case s.secret.expired:
		return &refusal{codeSecretExpired, fmt.Sprintf("The client secret keys of app '%s' are expired.", s.clientID)}
	default:
		return nil
	}
}
