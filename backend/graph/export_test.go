// SPDX-License-Identifier: MPL-2.0

package graph

// What the tests of the API share with the tests of internals.
var (
	ClientOf          = clientOf
	EncodePEM         = encodePEM
	EverythingAbout   = everythingAbout
	Failed            = failed
	Logging           = logging
	MakeCertificate   = makeCertificate
	Ours              = ours
	ProofOfPossession = proofOfPossession
	RequireNoSecrets  = requireNoSecrets
	Served            = served
	Sign              = sign
	Simulated         = simulated
	Theirs            = theirs
	ValidConfig       = validConfig
)

type SafeBuffer = safeBuffer
