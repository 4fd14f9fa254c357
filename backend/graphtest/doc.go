// SPDX-License-Identifier: MPL-2.0

// Package graphtest simulates what this project talks to, for one tenant: the
// sign-in of Microsoft Entra ID, the services that hand out tokens of managed
// identities, the calls of Microsoft Graph about the sensors' key and about the
// application's own credentials, and the registration of a Defender for Identity
// sensor with that key.
//
//	func TestKeyWorks(t *testing.T) {
//		sim := graphtest.Start(t)
//		client := newClient(sim.URL(), sim.CACertificate(), sim.App())
//
//		// The POST replaces the key, but its answer gets lost.
//		sim.Inject(graphtest.Fault{
//			Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Reset: true,
//		})
//		key, err := client.Regenerate(t.Context())
//		require.NoError(t, err)
//		require.True(t, sim.CanRegister(key))
//		require.Equal(t, 1, sim.Calls(graphtest.Regenerate).Performed)
//	}
//
// The simulator is as strict as the services: a token must carry the right
// signature, audience, tenant, lifetime and role, an assertion must have been
// made by whom the application trusts, and only the tenant's current key, byte
// for byte, registers a sensor. That strictness is its point, since the question
// behind most tests is whether the key that somebody holds works.
//
// A call has three moments that a test can tell apart and aim a [Fault] at: it
// arrives, its work is done, its answer is written. [Calls] counts each of
// them and [Simulator.Wait] waits for them, so no test needs to sleep.
//
// The same simulator runs as a program (cmd/mdi-simulator) for tests of a whole
// Vault; [Client] speaks to its control interface below /simulator/, which asks
// for no credential and hence belongs on a loopback address. Nothing that ships
// imports this package.
package graphtest
