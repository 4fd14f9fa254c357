# Sensor host: one of many that install a sensor with Vault Agent.
#
# The role sets how long the key is leased and whether it is shared. So a host cannot
# regenerate the key at will, as it could with mdi/key.
path "mdi/key/sensor-hosts" {
  capabilities = ["read"]
}

# Which version of the key is current, without the key: a host asks just before it installs.
path "mdi/key-version" {
  capabilities = ["read"]
}

# The address of the installer, for hosts that download it.
path "mdi/deployment-package" {
  capabilities = ["read"]
}
