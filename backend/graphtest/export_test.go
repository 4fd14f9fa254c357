// SPDX-License-Identifier: MPL-2.0

package graphtest

import "crypto/rsa"

// SigningKey returns the key that signs tokens, and its id, so that tests can forge them.
func (s *Simulator) SigningKey() (key *rsa.PrivateKey, id string) { return s.signer.key, s.signer.id }
