# Application: a host that installs a sensor, or the pipeline that does it.
#
# Reading is all it needs. The read regenerates the tenant's key, so give this
# policy to what installs sensors, and to nothing that merely watches. The lease
# cannot be renewed, and ends with the token that read it at the latest.
path "mdi/key" {
  capabilities = ["read"]
}
