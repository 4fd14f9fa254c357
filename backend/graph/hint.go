// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// Application permissions of Microsoft Graph.
const (
	// Permission is what both calls for the key need. getDeploymentAccessKey has no
	// read-only one.
	Permission = "SecurityIdentitiesSensors.ReadWrite.All"
	// PackagePermission is what getDeploymentPackageUri needs.
	PackagePermission = "SecurityIdentitiesSensors.Read.All"
	// ApplicationPermission lets an application replace its own client secret if it is
	// also an owner of itself.
	ApplicationPermission = "Application.ReadWrite.OwnedBy"
)

const (
	hintForeign    = "this answer is not Microsoft's own: have the proxy, firewall or gateway on the way pass requests on unchanged, and check graph_endpoint and authority_host if they are set"
	hintVersion    = "Graph may not offer this call at the configured graph_api_version: try the other one, " + V1 + " or " + Beta
	hintNoKey      = "Graph knows no key of this tenant: it may have no Defender for Identity workspace, or no key yet"
	hintOtherCloud = "the tenant lives in another cloud: check tenant_id, environment and authority_host, which belong together"
	hintFederation = "the app registration has no federated credential for the token that was presented: compare its issuer, subject and audience with the token's, letter by letter"
)

const (
	// codeBadProof is Graph's documented answer to a bad proof for addKey. For calls
	// without a proof it means a bad access token.
	codeBadProof = "Authentication_MissingOrMalformed"
	hintProof    = "Graph did not accept the proof: check that the certificate that signed it is registered with the application and valid now, and check the clock of this machine"
)

// hintHome is for an application that the tenant knows, since the sign-in went well, but
// whose registration it does not have.
const hintHome = "the tenant has no such app registration: that of a multi-tenant app lives in the app's home tenant alone, so replace its credential there and configure the new one here; otherwise check client_id and application_object_id"

// entraHints are for people: nothing in this package branches on these codes.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
var entraHints = map[string]string{
	"AADSTS7000215": "the client secret is wrong: check that it is the secret's value and not its id, and that it belongs to this app registration",
	"AADSTS7000213": "the chain of the certificate is not valid: client_certificate has to hold the certificate and each of its issuers, up to the one that the app registration trusts",
	"AADSTS7000222": "the client secret has expired: add a new one to the app registration and configure it",
	"AADSTS700016":  "the tenant does not know this application: check client_id and tenant_id, and that an administrator has consented to the application",
	"AADSTS7000112": "the application is disabled: enable it under Enterprise applications, or find out why it was disabled",
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

// policyHints explain refusals by the tenant's app management policy.
// https://learn.microsoft.com/graph/api/resources/applicationauthenticationmethodpolicy
var policyHints = map[string]string{
	"CredentialInvalidLifetimeAsPerAppPolicy": "a policy of the tenant does not allow a credential to be valid for so long: shorten the validity, or exempt the application",
	"CredentialTypeNotAllowedAsPerAppPolicy":  "a policy of the tenant does not allow this kind of credential: use another, or exempt the application",
}

// Hint returns a sentence that tells the operator what to do about the failure, or "" if
// this package knows nothing better than the error itself.
func (e *Error) Hint() string {
	switch {
	case e.Op == OpSignIn && e.managed:
		return e.managedHint()
	case e.foreign():
		return hintForeign
	case e.Op == OpSignIn:
		return entraHints[e.Code]
	case e.replaces() && policyHints[e.Code] != "":
		return policyHints[e.Code]
	case e.keyless:
		return hintNoKey
	case !e.replaces() && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest):
		return hintVersion // there are no parameters that could be wrong
	}
	switch e.Status {
	case http.StatusUnauthorized:
		if e.needsProof() && e.Code == codeBadProof {
			return hintProof
		}
		set := "the environment, graph_endpoint and authority_host"
		if e.managed {
			set = "the environment and graph_endpoint"
		}
		return "Graph did not accept the access token: check that " + set + " belong to the same cloud"
	case http.StatusForbidden:
		return e.forbiddenHint()
	case http.StatusNotFound:
		if e.Signed && e.replaces() {
			return hintHome
		}
	}
	return ""
}

func (e *Error) managedHint() string {
	switch {
	case e.Kind == Unreadable, e.Kind == Refused && e.Reason != "": // which says it all
		return ""
	case e.Kind == Refused:
		return "the managed identity was refused: check that it is assigned to this machine or service, and that client_id is the client id of a user-assigned identity"
	case e.Status == 0:
		return "no managed identity endpoint can be reached: managed_identity works only on Azure, on a machine or service that has an identity"
	}
	return "the endpoint that issues the managed identity's tokens is being updated or overloaded, which can take 70 seconds"
}

const denied = "Graph denies the call, which needs a permission: "

func (e *Error) forbiddenHint() string {
	switch {
	case e.Op == OpPackage:
		return denied + grantHint(PackagePermission, e.managed)
	case e.needsProof():
		return hintProof
	case e.replaces():
		return denied + grantHint(ApplicationPermission, e.managed) + ", and make the application an owner of itself; an app that is registered in another tenant can only be given a new credential there"
	}
	return denied + grantHint(Permission, e.managed)
}

// GrantHint says how to grant an application permission to the identity that the client
// signs in as.
func (c *Client) GrantHint(permission string) string { return grantHint(permission, c.tokens.managed) }

func grantHint(permission string, managed bool) string {
	if managed {
		return "assign the app role " + permission + " of Microsoft Graph to the managed identity's service principal, since there is no app registration; Azure can keep using an older token for up to a day"
	}
	return "give the app registration the application permission " + permission + " and grant admin consent for it; this can take minutes to take effect"
}

// needsProof reports whether the call requires a proof of possession.
func (e *Error) needsProof() bool { return e.Op == OpAddKey || e.Op == OpRemoveKey }

// replaces reports whether the call is about the application's own credentials.
func (e *Error) replaces() bool {
	return slices.Contains([]string{OpAddPassword, OpRemovePassword, OpAddKey, OpRemoveKey, OpApplication}, e.Op)
}

// Explain returns the text of err. If there is an [Error] in its chain, that begins with the
// cause and what to do about it; what Microsoft's support asks for is behind.
func Explain(err error) string {
	e, ok := errors.AsType[*Error](err)
	cause := ""
	if ok {
		cause = joined(": ", e.Reason, e.Hint())
	}
	if cause == "" {
		return err.Error()
	}
	return strings.Replace(err.Error(), e.Error(), cause+" ("+joined(", ", e.Op+": "+string(e.Kind), e.details())+")", 1)
}

// joined joins the texts that are not empty.
func joined(separator string, texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), separator)
}
