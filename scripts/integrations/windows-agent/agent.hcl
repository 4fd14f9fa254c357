# Vault Agent as a service on a Windows host where a sensor is to be installed (see
# register-agent.ps1). It keeps the key of the role "sensor-hosts" in a file and runs
# the installation whenever the file has been written. Stop the service when the rollout
# is over: the key stops working when the last lease ends.
#
# A service starts in C:\Windows\System32, so all paths are full paths. Windows accepts
# forward slashes; a backslash would have to be doubled.

vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "C:/ProgramData/mdi/role-id"
      secret_id_file_path = "C:/ProgramData/mdi/secret-id"
      # The agent signs in again when its token ends.
      remove_secret_id_file_after_reading = false
    }
  }

  # The host's token, for the installation to ask whether its key is still the current one.
  # It is in a file of the protected folder, and not behind a listener of the agent's with
  # use_auto_auth_token: every user and every service of a domain controller can connect to
  # 127.0.0.1, and could read the key through that. mode has no effect on Windows.
  sink "file" {
    config = {
      path = "C:/ProgramData/mdi/token"
      mode = 0600
    }
  }
}

template {
  source      = "C:/ProgramData/mdi/access-key.ctmpl"
  destination = "C:/ProgramData/mdi/access-key.txt"
  # Without a key, write no file instead of one that contains <no value>.
  error_on_missing_key = true

  exec {
    command = ["powershell.exe", "-NoProfile", "-NonInteractive", "-File", "C:/ProgramData/mdi/install-sensor.ps1", "-AccessKeyFile", "C:/ProgramData/mdi/access-key.txt", "-VaultAddress", "https://vault.example.com:8200"]
    timeout = "30m"
  }
}

# The version of that key, from the same read. The installer takes a file with nothing but
# the key.
template {
  contents    = "{{ with secret \"mdi/key/sensor-hosts\" }}{{ .Data.key_version }}{{ end }}"
  destination = "C:/ProgramData/mdi/key-version.txt"
}
