# Vault Agent beside Prometheus' node_exporter: reads mdi/status every minute and keeps
# it as metrics in a file for the exporter's textfile collector. Its token needs the
# policy "monitor" and nothing else. Reading the status changes nothing and sends nothing
# to Microsoft.

vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "/etc/mdi-metrics/role-id"
      secret_id_file_path = "/etc/mdi-metrics/secret-id"
      # The agent signs in again when its token ends.
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  # The status has no lease. Without this, the agent would read it every five minutes.
  static_secret_render_interval = "1m"
}

template {
  source      = "/etc/mdi-metrics/mdi.prom.ctmpl"
  destination = "/var/lib/node_exporter/textfile/mdi.prom"
  # The exporter runs as another user. The file has no secret in it.
  perms = "0644"
  # A field that the engine no longer has is an error, not a metric without a value.
  error_on_missing_key = true
}
