# Sensor host: one of many that install a sensor with Vault Agent.
#
# The role's terms decide how long the key is leased and whether it is shared, so
# a host cannot regenerate the key at will, as with mdi/key it could.
path "mdi/key/sensor-hosts" {
  capabilities = ["read"]
}

# Where the installer is, for a host that downloads it by itself.
path "mdi/deployment-package" {
  capabilities = ["read"]
}
