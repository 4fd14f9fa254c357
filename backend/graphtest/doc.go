// SPDX-License-Identifier: MPL-2.0

// Package graphtest simulates, for one tenant, what this project talks to: the sign-in of
// Microsoft Entra ID, and the services that issue tokens to managed identities. It has
// Microsoft Graph's calls for the sensors' key and for the application's own credentials,
// and the registration of a Defender for Identity sensor with that key.
//
// A test starts a simulator and points the code under test at its URL, both for Entra and
// for Graph. It makes that code trust the simulator's authority, and asks the simulator what
// happened:
//
//	func TestTheAnswerIsLost(t *testing.T) {
//		sim := graphtest.Start(t)
//		client := newClient(sim.URL(), sim.CACertificate(), sim.App())
//
//		// The POST replaces the key, but its answer gets lost.
//		sim.Inject(graphtest.Fault{
//			Operation: graphtest.Regenerate, Times: 1, AfterWork: true, Reset: true,
//		})
//		_, err := client.Regenerate(t.Context())
//		require.Error(t, err)
//		require.Equal(t, 1, sim.Calls(graphtest.Regenerate).Performed)
//
//		key, err := client.Read(t.Context())
//		require.NoError(t, err)
//		require.True(t, sim.CanRegister(key))
//	}
//
// The simulator is as strict as the services. A token must have the right signature,
// audience, tenant, lifetime and role; an assertion must come from an issuer that the
// application trusts; only the tenant's current key, byte by byte, registers a sensor.
// This matters because most tests ask whether a key works.
//
// A call has three moments: it arrives, its work is done, its answer is written. [Calls]
// counts each of them, a [Fault] can strike before or after the work, and [Simulator.Wait]
// waits for the counts, so no test needs to sleep.
//
// The same simulator runs as a program (cmd/mdi-simulator), for tests of a whole Vault.
// [Client] speaks to its control interface below /simulator/, which requires no
// credential and so belongs on a loopback address. Nothing that ships imports this
// package.
package graphtest
