variable "plugin_versions" {
  description = "Versions of the plugin, such as v1.2.3, each with the SHA-256 of its binary in Vault's plugin directory."
  type        = map(string)
}

variable "plugin_version" {
  description = "The one of them that the mount runs."
  type        = string
}

variable "tenant_id" {
  description = "GUID of the Entra tenant."
  type        = string
}

variable "client_id" {
  description = "GUID of the user-assigned managed identity that Vault runs with."
  type        = string
}
