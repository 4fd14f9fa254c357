# Vault Agent on a host where a sensor is to be installed: signs in, writes the
# deployment access key to a file for the installer's AccessKeyFile, and exits.
#
#   VAULT_ADDR=https://vault.example.com:8200 vault agent -config=agent.hcl
#   "Azure ATP sensor Setup.exe" /quiet NetFrameworkCommandLineArguments="/q" AccessKeyFile="C:\mdi\access-key.txt"
#
# Paths are relative to the folder that the agent runs in. On Windows, where a
# service starts elsewhere, use full paths with forward or doubled backslashes,
# "C:/mdi/access-key.txt" or "C:\\mdi\\access-key.txt", and restrict the file by
# the ACL of its folder: perms below has no effect there.

# The key is needed once, during the installation. An agent that kept running would read
# again at nine tenths of the lease, and each read regenerates the key for all hosts.
exit_after_auth = true

auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
      # Otherwise the next installation needs a new file.
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  # Fail after 12 attempts, which take five minutes, instead of trying forever while an
  # installation waits for the file.
  exit_on_retry_failure = true
}

template {
  source      = "access-key.ctmpl"
  destination = "access-key.txt"
  perms       = "0600"
  # Without a key, write no file instead of one that contains <no value>.
  error_on_missing_key = true
}
