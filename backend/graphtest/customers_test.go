// SPDX-License-Identifier: MPL-2.0

package graphtest_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// signInTo returns a token of the application in one of its tenants.
func (c *tester) signInTo(tenant string) string {
	c.t.Helper()
	r, err := c.do(c.t.Context(), http.MethodPost, "/"+tenant+"/oauth2/v2.0/token", c.goodForm().Encode(),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, r.status, r.body)
	return r.json(c.t)["access_token"].(string)
}

// One application, a key in each tenant.
func TestCustomersHaveKeysOfTheirOwn(t *testing.T) {
	c := newTester(t, graphtest.WithCustomers("One", "two"))
	tenants := []string{c.sim.App().TenantID, "One", "two"}
	for _, tenant := range tenants {
		before := map[string]string{}
		for _, other := range tenants {
			before[other] = c.sim.KeyOf(other)
		}
		token := c.signInTo(tenant)
		require.Equal(t, tenant, claimsIn(t, token)["tid"])
		require.Equal(t, before[tenant], c.call(graphtest.Get, token).key(t))
		regenerated := c.call(graphtest.Regenerate, token).key(t)
		for _, other := range tenants {
			require.Equal(t, other != tenant, before[other] == c.sim.KeyOf(other), "%s after a regeneration in %s", other, tenant)
			require.True(t, c.sim.CanRegister(c.sim.KeyOf(other)))
			require.Equal(t, http.StatusCreated, c.register(c.sim.KeyOf(other)))
		}
		require.Equal(t, regenerated, c.sim.KeyOf(tenant))
		require.Contains(t, c.sim.Issued(), regenerated)
		require.False(t, c.sim.CanRegister(before[tenant]))
	}
	require.Equal(t, c.sim.Key(), c.sim.KeyOf(c.sim.App().TenantID))
	require.NotEmpty(t, c.signInTo("ONE"), "a tenant's id has no case")

	one := c.signInTo("one")
	c.sim.Update(graphtest.WithCustomers("two"))
	require.Equal(t, http.StatusUnauthorized, c.call(graphtest.Get, one).status)
	r, err := c.do(t.Context(), http.MethodGet, "/one/v2.0/.well-known/openid-configuration", "", http.Header{})
	require.NoError(t, err)
	require.Equal(t, []any{float64(90002)}, r.json(t)["error_codes"])
	_, err = graphtest.New(graphtest.WithCustomers(""))
	require.Error(t, err)
}

// The application object lives in the home tenant only, whatever its permissions.
func TestCustomersHaveNoApplicationObject(t *testing.T) {
	c := newTester(t, graphtest.WithCustomers("customer"), graphtest.WithRoles(graphtest.RoleOwnedBy))
	certificate := c.registered("vault")
	byObjectID := "/v1.0/applications/" + url.PathEscape(c.sim.Info().ObjectID)
	for _, path := range []string{c.byAppID(""), byObjectID} {
		require.Equal(t, http.StatusOK, c.application(http.MethodGet, c.token(), path, nil).status)
		r := c.application(http.MethodGet, c.signInTo("customer"), path, nil)
		require.Equal(t, http.StatusNotFound, r.status)
		require.Equal(t, "Request_ResourceNotFound", r.graphCode(t))
		r = c.application(http.MethodPost, c.signInTo("customer"), path+"/addKey",
			keyRequest(unregistered(t, "new"), c.proof(certificate, nil)))
		require.Equal(t, http.StatusNotFound, r.status)
	}
}
