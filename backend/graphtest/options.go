// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The application roles that the sensor calls require.
const (
	RoleReadWrite = "SecurityIdentitiesSensors.ReadWrite.All"
	RoleRead      = "SecurityIdentitiesSensors.Read.All"
)

// settings is what options change. It is copied as a whole, so an option replaces a slice
// and never writes into one.
type settings struct {
	tenantID, clientID string
	customers          []string // the ids of the other tenants
	guest              bool     // tenantID is one of them
	secret             string   // of App
	key                string   // set by WithKey; empty for a random one
	roles              []string
	audience           string
	tokenLifetime      time.Duration
	shape              Shape
	clock              func() time.Time
	serverNames        []string
	staleReads         int
	packageURL         string
	packageVersion     string

	objectID              string // of the application
	principalID           string // of its service principal
	owned                 bool
	passwords             []password
	certificates          []certificate
	subjectNames          []subjectName
	federations           []federation
	propagation           []bool // outcomes of the first sign-ins with a new credential
	listingLag            int    // number of the first reads that miss one
	maxCredentialLifetime time.Duration

	identityHeader string // the secret of App Service
	systemIdentity string // client id; empty for none
	userIdentities []string
}

func defaultSettings() settings {
	s := settings{
		tenantID:      uuid.NewString(),
		clientID:      uuid.NewString(),
		roles:         []string{RoleReadWrite, RoleRead},
		audience:      "https://graph.microsoft.com",
		tokenLifetime: time.Hour,
		shape:         ShapeRoot,
		clock:         time.Now,
		packageURL: "https://simulated-sensorapi.mdi.securitycenter.microsoft.com" +
			"/packages/Azure%20ATP%20Sensor%20Setup.zip",
		packageVersion: "2.250.18972.64801",
		objectID:       uuid.NewString(),
		principalID:    uuid.NewString(),
		owned:          true,
		identityHeader: uuid.NewString(),
		systemIdentity: uuid.NewString(),
	}
	s.setSecret(newClientSecret())
	return s
}

// newClientSecret resembles a secret of Entra: about 40 characters, some of which a client
// must escape.
func newClientSecret() string {
	text := rand.Text() + rand.Text()
	return text[:3] + "8Q~" + text[3:37]
}

// Option configures the tenant: in [New] or [Start], or later in [Simulator.Update].
// Options apply in order.
type Option func(*settings) error

// WithTenant sets the tenant's id.
func WithTenant(id string) Option {
	return func(s *settings) error {
		if id == "" {
			return errors.New("the tenant's id is empty")
		}
		s.tenantID = id
		return nil
	}
}

// WithCustomers makes the application a multi-tenant one: it can sign in to the tenants
// with these ids, too. Each has a key of its own, but no application object: that lives in
// the home tenant, of [WithTenant].
func WithCustomers(ids ...string) Option {
	ids = slices.Clone(ids)
	return func(s *settings) error {
		if slices.Contains(ids, "") {
			return errors.New("the id of a tenant is empty")
		}
		s.customers = ids
		return nil
	}
}

// in returns the settings as they are in a tenant, and whether the application is in it.
func (s settings) in(tenant string) (settings, bool) {
	i := slices.IndexFunc(s.customers, func(id string) bool { return strings.EqualFold(id, tenant) })
	if i >= 0 {
		s.tenantID, s.guest = s.customers[i], true
		return s, true
	}
	return s, strings.EqualFold(tenant, s.tenantID)
}

// WithApp sets the application's client id and its client secret, which is valid from now
// on and replaces all but those of [WithForeignPassword]. An empty string changes nothing.
func WithApp(clientID, secret string) Option {
	return func(s *settings) error {
		if clientID != "" {
			s.clientID = clientID
		}
		if secret != "" {
			s.setSecret(secret)
		}
		return nil
	}
}

// WithExpiredSecret makes all client secrets but those of [WithForeignPassword] expire:
// sign-in fails with AADSTS7000222 until there is another one.
func WithExpiredSecret() Option {
	return func(s *settings) error {
		s.passwords = slices.Clone(s.passwords)
		for i, p := range s.passwords {
			if !p.foreign {
				s.passwords[i].end = s.clock()
			}
		}
		return nil
	}
}

// WithRoles sets the application roles of tokens issued from now on. As with Entra, a token
// keeps the roles that it was issued with. The default is [RoleReadWrite] and [RoleRead].
func WithRoles(roles ...string) Option {
	roles = slices.Clone(roles)
	return func(s *settings) error {
		s.roles = roles
		return nil
	}
}

// WithTokenLifetime sets how long tokens issued from now on are valid, in whole
// seconds. The default is one hour.
func WithTokenLifetime(d time.Duration) Option {
	return func(s *settings) error {
		if d < time.Second || d%time.Second != 0 {
			return fmt.Errorf("invalid token lifetime %v: it must be a positive number of whole seconds", d)
		}
		s.tokenLifetime = d
		return nil
	}
}

// WithBodyShape sets how Graph wraps its answers and names the key in them. The default is
// [ShapeRoot].
func WithBodyShape(shape Shape) Option {
	return func(s *settings) error {
		if !slices.Contains(Shapes(), shape) {
			return fmt.Errorf("unknown body shape %q", shape)
		}
		s.shape = shape
		return nil
	}
}

// WithAudience sets the resource that tokens are issued for and that Graph accepts. The
// default is https://graph.microsoft.com; national clouds have their own.
func WithAudience(audience string) Option {
	return func(s *settings) error {
		audience = strings.TrimSuffix(audience, "/")
		if audience == "" {
			return errors.New("the audience is empty")
		}
		s.audience = audience
		return nil
	}
}

// WithClock sets the clock that dates and checks tokens. Latency and the server's
// certificates use the real one.
func WithClock(now func() time.Time) Option {
	return func(s *settings) error {
		if now == nil {
			return errors.New("the clock is nil")
		}
		s.clock = now
		return nil
	}
}

// WithServerNames sets host names or IP addresses that the server's certificate is valid
// for, in addition to localhost, 127.0.0.1 and ::1.
func WithServerNames(names ...string) Option {
	names = slices.Clone(names)
	return func(s *settings) error {
		s.serverNames = names
		return nil
	}
}

// WithStaleReads makes the next n reads of the key return the previous one, like a replica
// of Graph that lags behind. Without a previous key, reads are not stale and do not count.
func WithStaleReads(n int) Option {
	return func(s *settings) error {
		if n < 0 {
			return fmt.Errorf("the number of stale reads is negative: %d", n)
		}
		s.staleReads = n
		return nil
	}
}

// WithPackage sets the answer of the deployment package call. The default is a URL on one
// of Microsoft's hosts that does not exist.
func WithPackage(downloadURL, version string) Option {
	return func(s *settings) error {
		if _, err := url.Parse(downloadURL); err != nil {
			return fmt.Errorf("the package's URL: %w", err)
		}
		s.packageURL, s.packageVersion = downloadURL, version
		return nil
	}
}
