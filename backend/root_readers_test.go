// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
	"example.com/vault-plugin-secrets-mdi/backend/rootrotation"
)

// Two hundred readers, each of whom needs Graph, half of them all at once, while the
// token ends, Graph challenges it, and the credential is rotated. Each of the three is
// waited for, and the tokens are counted: fewer would mean that one of them has not
// happened.
func TestReadersGoOnWhileEverythingIsReplaced(t *testing.T) {
	besideOthers(t)
	kinds(t, func(t *testing.T, kind string) {
		// MSAL replaces a token five minutes before it ends: this one serves for 2 s.
		const usable = 2 * time.Second
		r := rotatable(t, kind, graphtest.WithTokenLifetime(5*time.Minute+usable))
		r.write("roles/fresh", map[string]any{config.FieldMaxKeyAge: 0})
		tokens, began := r.sim.Calls(graphtest.Token).Performed, time.Now()
		leave := r.keepReading(100, "key/fresh", deploymentPackagePath)
		defer leave()

		r.awaits(graphtest.Token, tokens+1) // nothing but the end of the one before asks for it
		r.challengeTogether(50)
		r.awaits(graphtest.Token, tokens+2)
		r.write(rotateRootPath, nil)
		r.awaits(graphtest.Package, r.sim.Calls(graphtest.Package).Performed+200)
		r.awaits(graphtest.Regenerate, r.posts()+2)
		leave()

		issued, lifetimes := r.sim.Calls(graphtest.Token).Performed-tokens, int(time.Since(began)/usable)+1
		require.GreaterOrEqual(t, issued, 2+rootrotation.Proofs, "one after the end, one for the challenge, and the proofs")
		require.LessOrEqual(t, issued, lifetimes+1+rootrotation.Proofs, "one a lifetime, one for the challenge, and the proofs")
	})
}

// keepReading lets as many readers as it is told read each of the paths again and again,
// until leave is called. None of them may fail.
func (r *rig) keepReading(many int, paths ...string) (leave func()) {
	const pause = 200 * time.Millisecond
	done := make(chan struct{})
	var readers sync.WaitGroup
	for n := range many * len(paths) {
		readers.Go(func() {
			for wait := pause * time.Duration(n) / time.Duration(many*len(paths)); ; wait = pause {
				select {
				case <-done:
					return
				case <-time.After(wait):
				}
				if _, err := r.request(r.t.Context(), logical.ReadOperation, paths[n%len(paths)], nil); err != nil {
					r.t.Errorf("a read of %s failed: %v", paths[n%len(paths)], err)
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(done)
		readers.Wait()
	})
}

// awaits returns when calls of an operation have been performed.
func (r *rig) awaits(op graphtest.Operation, calls int) {
	r.t.Helper()
	require.NoError(r.t, r.sim.Wait(r.t.Context(), op, func(c graphtest.Calls) bool { return c.Performed >= calls }))
}

// challengeTogether has Graph revoke the token that many readers of the package are
// using at the same moment, and challenge each of them. One new token, which satisfies
// the challenge, has to do for all.
func (r *rig) challengeTogether(many int) {
	r.t.Helper()
	before, arrived := r.sim.Challenges(), r.sim.Calls(graphtest.Package).Started
	r.sim.Inject(graphtest.Fault{Operation: graphtest.Package, Times: many, Claims: true, Latency: time.Hour})
	require.NoError(r.t, r.sim.Wait(r.t.Context(), graphtest.Package, func(c graphtest.Calls) bool { return c.Started >= arrived+many }))
	r.sim.Clear()
	r.eventually("the challenge is answered with its claims", func() bool { return r.sim.Challenges().Answered > before.Answered })
	require.Equal(r.t, before.Answered+1, r.sim.Challenges().Answered)
	r.eventually("all have been challenged", func() bool { return r.sim.Challenges().Sent >= before.Sent+many })
}
