# Vault Agent on a host where a sensor is to be installed, one of many. It keeps the
# deployment access key of the role "sensor-hosts" in a file and runs the
# installation whenever the file has been written:
#
#   VAULT_ADDR=https://vault.example.com:8200 vault agent -config=agent.hcl
#
# All hosts hold the same key. The agent reads again at nine tenths of the role's ttl, so
# a host has a new key within that time; the installation asks just before it begins. Stop
# the agent when the rollout is over: the key stops working when the last lease ends.
#
# Paths are relative to the folder that the agent runs in. On Windows, where a
# service starts elsewhere, use full paths such as "C:/mdi/access-key.txt", and
# restrict the files by the ACL of their folder: perms has no effect there.

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
      # The agent signs in again when its token ends.
      remove_secret_id_file_after_reading = false
    }
  }

  # The host's token, for the installation to ask whether its key is still the current one.
  # It is in a file, and not behind a listener of the agent's with use_auto_auth_token: every
  # user and every service of the host could read the key through that, and this file only
  # those who can read the secret-id as well. On Windows the ACL of the folder restricts it.
  sink "file" {
    config = {
      path = "token"
      mode = 0600
    }
  }
}

template {
  source      = "access-key.ctmpl"
  destination = "access-key.txt"
  perms       = "0600"
  # Without a key, write no file instead of one that contains <no value>.
  error_on_missing_key = true

  exec {
    # On Windows:
    # command = ["powershell.exe", "-NoProfile", "-NonInteractive", "-File", "C:/mdi/install-sensor.ps1", "-AccessKeyFile", "C:/mdi/access-key.txt", "-VaultAddress", "https://vault.example.com:8200"]
    command = ["./install-sensor.sh", "access-key.txt"]
    timeout = "30m"
  }
}

# The version of that key, from the same read. The installer takes a file with nothing but
# the key.
template {
  contents    = "{{ with secret \"mdi/key/sensor-hosts\" }}{{ .Data.key_version }}{{ end }}"
  destination = "key-version.txt"
  perms       = "0600"
}
