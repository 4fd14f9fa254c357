// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// The paths of the two services that issue tokens to managed identities.
const (
	appServicePath = "/msi/token"
	metadataPath   = "/metadata/identity/oauth2/token"
)

// MetadataHandler serves the tokens of the machine's managed identities over plain HTTP,
// like Azure: at /msi/token as App Service, and at /metadata/identity/oauth2/token as the
// metadata service of a virtual machine, whose real address is 169.254.169.254.
func (s *Simulator) MetadataHandler() http.Handler { return s.metadata.Handler }

func (s *Simulator) metadataRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(appServicePath, s.call(ManagedIdentity, appService))
	mux.Handle(metadataPath, s.call(ManagedIdentity, instanceMetadata))
	return mux
}

// ListenMetadata binds a TCP address for [Simulator.ServeMetadata].
func (s *Simulator) ListenMetadata(ctx context.Context, address string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.setMetadataURL(ln.Addr())
	return ln, nil
}

// ServeMetadata serves [Simulator.MetadataHandler] until Close is called, and then returns
// nil.
func (s *Simulator) ServeMetadata(ln net.Listener) error {
	s.setMetadataURL(ln.Addr())
	if err := s.metadata.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// StartMetadata serves [Simulator.MetadataHandler] on a loopback port until the end of a
// test and returns its URL.
func (s *Simulator) StartMetadata(t testing.TB) string {
	t.Helper()
	ln, err := s.ListenMetadata(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatalf("starting the metadata service: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeMetadata(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Errorf("stopping the metadata service: %v", err)
		}
	})
	return s.MetadataURL()
}

func (s *Simulator) setMetadataURL(addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metadataURL = "http://" + reachable(addr)
}

// MetadataURL returns the root of [Simulator.MetadataHandler], or "" before it is served.
// With the path /msi/token it is the value of App Service's environment variable
// IDENTITY_ENDPOINT.
func (s *Simulator) MetadataURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metadataURL
}

// IdentityHeader returns the value of App Service's environment variable IDENTITY_HEADER,
// which requests must have in a header. It is a secret.
func (s *Simulator) IdentityHeader() string { return s.current().identityHeader }

// appService issues a token like App Service.
func appService(x *exchange) answer {
	s := x.sim.current()
	given := x.r.Header.Get("X-IDENTITY-HEADER")
	if subtle.ConstantTimeCompare([]byte(given), []byte(s.identityHeader)) == 0 {
		return appServiceError(http.StatusUnauthorized, "The identity header is missing or wrong.")
	}
	token, err := x.identityToken(s, "2019-08-01", "client_id", "principal_id", "object_id", "mi_res_id")
	if err != nil {
		return appServiceError(http.StatusBadRequest, err.Error())
	}
	return answer{status: http.StatusOK, header: http.Header{}, body: token}
}

func appServiceError(status int, message string) answer {
	return answer{status: status, header: http.Header{}, body: map[string]any{
		"statusCode": status, "message": message, "correlationId": uuid.NewString(),
	}}
}

// instanceMetadata issues a token like the metadata service. That has two guards against
// forged requests: it requires a header, and refuses requests through a proxy.
func instanceMetadata(x *exchange) answer {
	switch {
	case !strings.EqualFold(x.r.Header.Get("Metadata"), "true"):
		return metadataError(http.StatusBadRequest, "", "Required metadata header not specified")
	case x.r.Header.Get("X-Forwarded-For") != "":
		return metadataError(http.StatusBadRequest, "", "Requests through a proxy are not allowed")
	}
	s := x.sim.current()
	token, err := x.identityToken(s, "2018-02-01", "client_id", "object_id", "msi_res_id")
	if err != nil {
		return metadataError(http.StatusBadRequest, "", err.Error())
	}
	lifetime := strconv.Itoa(seconds(s.tokenLifetime))
	token["expires_in"], token["ext_expires_in"] = lifetime, lifetime
	return answer{status: http.StatusOK, header: http.Header{}, body: token}
}

// metadataError returns an error of the metadata service, which has no AADSTS codes.
func metadataError(status int, code, message string) answer {
	if code == "" {
		code = "invalid_request"
	}
	return answer{status: status, header: http.Header{}, body: map[string]any{
		"error": code, "error_description": message,
	}}
}

// identityToken returns the answer that both services have in common. The names are those
// of the parameters that select an identity.
func (x *exchange) identityToken(s settings, version string, names ...string) (map[string]any, error) {
	query := x.r.URL.Query()
	resource := query.Get("resource")
	clientID, assigned := s.identity(query, names)
	objectID, _ := UserIdentity(clientID)
	switch {
	case x.r.Method != http.MethodGet:
		return nil, errors.New("the request must be a GET")
	case query.Get("api-version") != version:
		return nil, fmt.Errorf("the api-version must be %s", version)
	case resource == "":
		return nil, errors.New("the resource is missing")
	case strings.TrimSuffix(resource, "/") != s.audience:
		return nil, fmt.Errorf("AADSTS%d: the resource principal named %s was not found", codeResourceUnknown, resource)
	case !assigned:
		return nil, errors.New("Identity not found") //nolint:staticcheck // what the service says
	}
	now := s.clock()
	return map[string]any{
		"access_token": x.sim.newToken(s, grant{op: x.op, appID: clientID, principalID: objectID}),
		"client_id":    clientID,
		"expires_on":   strconv.FormatInt(now.Add(s.tokenLifetime).Unix(), 10),
		"not_before":   strconv.FormatInt(now.Unix(), 10),
		"resource":     resource,
		"token_type":   "Bearer",
	}, nil
}

// UserIdentity returns the other two names of a user-assigned identity.
func UserIdentity(clientID string) (objectID, resourceID string) {
	clientID = strings.ToLower(clientID)
	return uuid.NewHash(sha256.New(), uuid.NameSpaceURL, []byte(clientID), 5).String(),
		"/subscriptions/" + uuid.Nil.String() + "/resourcegroups/simulated" +
			"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + clientID
}

// identity finds the managed identity that the query selects by one of these names:
// without any, the system-assigned one.
func (s settings) identity(query url.Values, names []string) (clientID string, assigned bool) {
	names = slices.DeleteFunc(names, func(name string) bool { return query.Get(name) == "" })
	if len(names) == 0 {
		return s.systemIdentity, s.systemIdentity != ""
	}
	for _, id := range s.userIdentities {
		object, resource := UserIdentity(id)
		if len(names) == 1 && slices.ContainsFunc([]string{id, object, resource}, func(name string) bool {
			return strings.EqualFold(name, query.Get(names[0]))
		}) {
			return id, true
		}
	}
	return "", false
}
