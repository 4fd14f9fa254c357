# The engine, its configuration, a role for hosts that install sensors, and their sign-in.
# There is no secret here, so none gets into Terraform's state.

# One binary for each version, so that both exist while the mount moves from one to the
# next. It runs the new one after vault plugin reload.
resource "vault_plugin" "mdi" {
  for_each = var.plugin_versions

  type    = "secret"
  name    = "vault-plugin-secrets-mdi"
  command = "vault-plugin-secrets-mdi-${each.key}"
  version = each.key
  sha256  = each.value
}

resource "vault_mount" "mdi" {
  path           = "mdi"
  type           = "vault-plugin-secrets-mdi"
  plugin_version = vault_plugin.mdi[var.plugin_version].version
  description    = "Deployment access key of Defender for Identity"
}

# Terraform compares what it has written with what Vault returns, so durations are in
# seconds, as Vault returns them: "30m" would be a change in every plan.
#
# If the app signs in with a client secret or a certificate, an operator should write the
# connection once: the data of a vault_generic_endpoint are in the state. Then leave out
# tenant_id, client_id and credential_type, and set disable_delete: a write keeps the
# fields that it does not name.
resource "vault_generic_endpoint" "config" {
  path = "${vault_mount.mdi.path}/config"
  data_json = jsonencode({
    tenant_id         = var.tenant_id
    client_id         = var.client_id
    credential_type   = "managed_identity"
    rotation_schedule = "30 3 * * 6"
    rotation_window   = 7200
  })

  # Otherwise each field that is not written here would be a difference.
  ignore_absent_fields = true
}

resource "vault_generic_endpoint" "sensor_hosts" {
  path                 = "${vault_mount.mdi.path}/roles/sensor-hosts"
  data_json            = jsonencode({ ttl = 1800 })
  ignore_absent_fields = true
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
