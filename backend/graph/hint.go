// SPDX-License-Identifier: MPL-2.0

package graph

import "net/http"

// Application permissions of Microsoft Graph.
const (
	// Permission is what both calls for the key need; there is no read-only one
	// for getDeploymentAccessKey.
	Permission = "SecurityIdentitiesSensors.ReadWrite.All"
	// PackagePermission is what getDeploymentPackageUri needs besides.
	PackagePermission = "SecurityIdentitiesSensors.Read.All"
)

// entraHints are for people: the meanings of these codes are documented at
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes,
// and nothing in this package branches on them.
var entraHints = map[string]string{
	"AADSTS7000215": "the client secret is wrong: check that it is the secret's value and not its id, and that it belongs to this app registration",
	"AADSTS7000222": "the client secret has expired: add a new one to the app registration and configure it",
	"AADSTS700016":  "the tenant does not know this application: check client_id and tenant_id, and that an administrator has consented to the application",
	"AADSTS90002":   "the tenant was not found: check tenant_id, and that the environment is the cloud the tenant lives in",
	"AADSTS700027":  "the client assertion was not accepted: check that the certificate is registered with the application and has not expired",
	"AADSTS500011":  "the tenant does not know Microsoft Graph under the name of this cloud: check that the environment is the cloud the tenant lives in",
	"AADSTS53003":   "a conditional access policy blocks the application: exclude it, or allow the address it comes from",
}

// Hint says what to do about the failure, in a sentence for the operator, or is
// empty where this package knows nothing better than the error itself.
func (e *Error) Hint() string {
	if e.Op == OpSignIn {
		return entraHints[e.Code]
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return "Graph did not accept the access token: check that the environment, graph_endpoint and authority_host belong to the same cloud"
	case http.StatusForbidden:
		permission := Permission
		if e.Op == OpPackage {
			permission = PackagePermission
		}
		return "give the app registration the application permission " + permission + " and grant admin consent for it; it can take minutes until it takes effect"
	}
	return ""
}
