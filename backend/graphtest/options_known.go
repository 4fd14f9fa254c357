// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"errors"
	"slices"
)

// The options in this file recreate a tenant that an engine already knows.

// WithKey sets the tenant's deployment access key.
func WithKey(key string) Option {
	return func(s *settings) error {
		if key == "" {
			return errors.New("the key is empty")
		}
		s.key = key
		return nil
	}
}

// WithPassword adds a client secret with a known id. Unlike that of [WithForeignPassword],
// it can be the client's own.
func WithPassword(keyID, displayName, secret string) Option {
	return func(s *settings) error {
		if keyID == "" || secret == "" {
			return errors.New("a client secret needs an id and a value")
		}
		p := newPassword(displayName, secret)
		p.keyID = keyID
		s.passwords = append(slices.Clone(s.passwords), p)
		return nil
	}
}
