variable "plugin_versions" {
  description = "Versions of the plugin, such as v1.2.3, each with the SHA-256 of its binary in Vault's plugin directory."
  type        = map(string)
}

variable "plugin_version" {
  description = "The one of them that the mount runs."
  type        = string
}

variable "platform" {
  description = "End of the binaries' names in a release, after the version: linux_arm64, or windows_amd64.exe."
  type        = string
  default     = "linux_amd64"
}

# No secret is among these. With credential_type "client_secret" or "client_certificate", an
# operator writes the same fields with the secret before the configuration is applied for
# the first time, since it needs one: docs/integrations.md has the commands.
variable "connection" {
  description = "The fields of mdi/config that say which tenant it is for, and how the engine signs in."
  type = object({
    tenant_id               = string
    client_id               = optional(string, "") # a system-assigned managed identity needs none
    credential_type         = optional(string, "managed_identity")
    environment             = optional(string, "AzurePublicCloud")
    application_object_id   = optional(string, "")
    authority_host          = optional(string, "")
    graph_endpoint          = optional(string, "")
    ca_certificate          = optional(string, "") # trimspace(file("ca.pem")): the engine keeps no newline at its end
    identity_token_audience = optional(string) # these two with vault_identity_token
    identity_token_ttl      = optional(number)
  })
}
