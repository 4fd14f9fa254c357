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
	// ApplicationPermission is what an application needs to replace its own
	// client secret, if it is also an owner of itself.
	ApplicationPermission = "Application.ReadWrite.OwnedBy"
)

const (
	hintOtherCloud = "the tenant lives in another cloud: check tenant_id, environment and authority_host, which belong together"
	hintFederation = "the app registration has no federated credential for the token that was presented: compare its issuer, subject and audience with the token's, letter by letter"
)

const (
	// codeBadProof is what Graph says about the proof of addKey, although it
	// means the access token everywhere else.
	codeBadProof = "Authentication_MissingOrMalformed"
	hintProof    = "Graph did not accept the proof: check that the certificate which signed it is registered with the application and is valid now, and the clock of this machine"
)

// entraHints are for people: the meanings of these codes are documented at
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes, and
// nothing in this package branches on them.
var entraHints = map[string]string{
	"AADSTS7000215": "the client secret is wrong: check that it is the secret's value and not its id, and that it belongs to this app registration",
	"AADSTS7000222": "the client secret has expired: add a new one to the app registration and configure it",
	"AADSTS700016":  "the tenant does not know this application: check client_id and tenant_id, and that an administrator has consented to the application",
	"AADSTS7000112": "the application is disabled: enable it under Enterprise applications, or find out why somebody disabled it",
	"AADSTS7000229": "the application has no service principal in the tenant: an administrator has to consent to it first",
	"AADSTS90002":   "the tenant was not found: check tenant_id, and that the environment is the cloud the tenant lives in",
	"AADSTS90038":   hintOtherCloud,
	"AADSTS900382":  hintOtherCloud,
	"AADSTS900439":  hintOtherCloud,
	"AADSTS500011":  "the tenant does not know Microsoft Graph under the name of this cloud: check that the environment is the cloud the tenant lives in",
	"AADSTS53003":   "a conditional access policy blocks the application: exclude it, or allow the address it comes from",

	"AADSTS700027": "the client assertion was not accepted: check that the certificate is registered with the application and has not expired",
	"AADSTS700024": "the client assertion is not valid at this time: check the clock of this machine, and that the token or certificate behind it has not expired",
	"AADSTS700021": "the client assertion is for another application: check client_id",
	"AADSTS700023": "the client assertion is for another audience: check that the environment and authority_host belong to the tenant's cloud",
	"AADSTS700030": "the certificate's subject or issuer is not one that the app registration trusts",
	"AADSTS50013":  "the signature of the client assertion could not be verified: check that its issuer publishes the key it signs with",

	"AADSTS70021":  hintFederation,
	"AADSTS700211": hintFederation,
	"AADSTS700212": hintFederation,
	"AADSTS700213": hintFederation,
}

// policyHints are for refusals by the tenant's app management policy.
// https://learn.microsoft.com/graph/api/resources/applicationauthenticationmethodpolicy
var policyHints = map[string]string{
	"CredentialInvalidLifetimeAsPerAppPolicy": "a policy of the tenant does not allow a credential to be valid for so long: shorten the validity, or exempt the application",
	"CredentialTypeNotAllowedAsPerAppPolicy":  "a policy of the tenant does not allow this kind of credential: use another, or exempt the application",
}

// Hint says what to do about the failure, in a sentence for the operator, or is
// empty where this package knows nothing better than the error itself.
func (e *Error) Hint() string {
	switch {
	case e.Op == OpSignIn && e.managed:
		return e.managedHint()
	case e.Op == OpSignIn:
		return entraHints[e.Code]
	case e.replaces() && policyHints[e.Code] != "":
		return policyHints[e.Code]
	}
	switch e.Status {
	case http.StatusUnauthorized:
		if e.proven() && e.Code == codeBadProof {
			return hintProof
		}
		if e.managed {
			return "Graph did not accept the access token: check that the environment and graph_endpoint belong to the same cloud"
		}
		return "Graph did not accept the access token: check that the environment, graph_endpoint and authority_host belong to the same cloud"
	case http.StatusForbidden:
		return e.forbiddenHint()
	}
	return ""
}

func (e *Error) managedHint() string {
	switch {
	case e.Status == 0 && e.Kind != Unreadable:
		return "there is no managed identity endpoint within reach: managed_identity works on Azure alone, where the machine or service has an identity"
	case e.Kind == Refused:
		return "the managed identity was refused: check that it is assigned to this machine or service, and that client_id is the one of a user-assigned identity"
	}
	return ""
}

func (e *Error) forbiddenHint() string {
	switch {
	case e.Op == OpPackage:
		return grantHint(PackagePermission, e.managed)
	case e.proven():
		return hintProof
	case e.replaces():
		return grantHint(ApplicationPermission, e.managed) + ", and make the application an owner of itself"
	}
	return grantHint(Permission, e.managed)
}

// GrantHint says how an application permission is given to what the client signs in
// as.
func (c *Client) GrantHint(permission string) string { return grantHint(permission, c.managed) }

func grantHint(permission string, managed bool) string {
	if managed {
		return "assign the app role " + permission + " of Microsoft Graph to the managed identity's service principal, since there is no app registration; Azure can go on with a token from before for up to a day"
	}
	return "give the app registration the application permission " + permission + " and grant admin consent for it; it can take minutes until it takes effect"
}

// proven tells whether the call needs a proof of possession.
func (e *Error) proven() bool { return e.Op == OpAddKey || e.Op == OpRemoveKey }

// replaces tells whether the call concerns the application's own credentials.
func (e *Error) replaces() bool {
	switch e.Op {
	case OpAddPassword, OpRemovePassword, OpAddKey, OpRemoveKey, OpApplication:
		return true
	}
	return false
}
