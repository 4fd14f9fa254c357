# The engine, its configuration, a role for hosts that install sensors, and their sign-in.
# There is no secret here, so none gets into Terraform's state.

# One binary for each version, under the name that it has in a release, so that both exist
# while the mount moves from one to the next. It runs the new one after vault plugin reload.
resource "vault_plugin" "mdi" {
  for_each = var.plugin_versions

  type    = "secret"
  name    = "vault-plugin-secrets-mdi"
  command = "vault-plugin-secrets-mdi_${trimprefix(each.key, "v")}_${var.platform}"
  version = each.key
  sha256  = each.value
}

# Without plugin_version, the mount would run the highest version that is registered.
resource "vault_mount" "mdi" {
  path           = "mdi"
  type           = "vault-plugin-secrets-mdi"
  plugin_version = vault_plugin.mdi[var.plugin_version].version
  description    = "Deployment access key of Defender for Identity"
}

# All fields that mdi/config returns. Terraform compares them with what Vault returns, so a
# change by hand, a mistyped field, a field that is deleted here, and one that a new version
# of the engine adds are each a change in every plan until this file is right. With
# ignore_absent_fields or disable_read, Terraform would report none of these.
#
# Durations are in seconds, as Vault returns them: "30m" would be a change in every plan.
locals {
  config = merge({
    disable_automated_rotation = false
    drift_check_interval       = 600
    graph_api_version          = "v1.0"
    max_key_age                = 0
    regenerate_on_revoke       = true
    root_rotation_period       = 0
    rotation_period            = 0
    rotation_schedule          = "30 3 * * 6"
    rotation_window            = 7200
    ttl                        = 3600
  }, { for name, value in var.connection : name => value if value != null })
}

resource "vault_generic_endpoint" "config" {
  path      = "${vault_mount.mdi.path}/config"
  data_json = jsonencode(local.config)
}

resource "vault_generic_endpoint" "sensor_hosts" {
  path      = "${vault_mount.mdi.path}/roles/sensor-hosts"
  data_json = jsonencode({ ttl = 1800 })
}

resource "vault_policy" "sensor_host" {
  name   = "sensor-host"
  policy = file("${path.module}/../../policies/sensor-host.hcl")
}

resource "vault_policy" "monitor" {
  name   = "monitor"
  policy = file("${path.module}/../../policies/monitor.hcl")
}

resource "vault_auth_backend" "approle" {
  type = "approle"
}

# The token outlives the lease of 30 minutes: a lease ends with the token that read it.
resource "vault_approle_auth_backend_role" "sensor_hosts" {
  backend        = vault_auth_backend.approle.path
  role_name      = "sensor-hosts"
  token_policies = [vault_policy.sensor_host.name]
  token_ttl      = 3600
}
