// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"fmt"
	"io"
	"net/http"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// Credential is what an app registration proves its identity with. ClientSecret
// is the only kind so far; what a kind needs beyond that stays in its file.
type Credential interface {
	// tokenSource returns a source that has not signed in yet. Its errors
	// concern the credential alone and show nothing of it.
	tokenSource(cfg *Config, client *http.Client) (tokenSource, error)
}

// ClientSecret is a client secret's value (not its id). However it is printed
// or encoded, nothing of it shows.
type ClientSecret string

const redacted = "[redacted]"

// Format implements fmt.Formatter, which comes before every other way in which
// package fmt prints a value, %#v included.
func (ClientSecret) Format(f fmt.State, _ rune) {
	// A fmt.State has nowhere to fail to, and Format nowhere to report it.
	_, _ = io.WriteString(f, redacted)
}

// String is for those who call it directly.
func (ClientSecret) String() string { return redacted }

// MarshalText keeps the secret out of JSON, structured logs included.
func (ClientSecret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (s ClientSecret) tokenSource(cfg *Config, client *http.Client) (tokenSource, error) {
	if s == "" {
		return nil, &ConfigError{"client_secret", "is missing"}
	}
	cred, err := confidential.NewCredFromSecret(string(s))
	if err != nil {
		return nil, &ConfigError{"client_secret", "is not accepted by the sign-in library"}
	}
	return newConfidentialSource(cfg, cred, client)
}
