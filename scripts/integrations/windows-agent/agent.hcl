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
}

template {
  source      = "C:/ProgramData/mdi/access-key.ctmpl"
  destination = "C:/ProgramData/mdi/access-key.txt"
  # Without a key, write no file instead of one that contains <no value>.
  error_on_missing_key = true

  exec {
    command = ["powershell.exe", "-NoProfile", "-NonInteractive", "-File", "C:/ProgramData/mdi/install-sensor.ps1", "-AccessKeyFile", "C:/ProgramData/mdi/access-key.txt"]
    timeout = "30m"
  }
}
