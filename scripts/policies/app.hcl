# Application: a host that installs a sensor, or a pipeline that does so.
#
# It only needs to read. Each read regenerates the tenant's key, so give this policy to
# programs that install sensors, and not to monitoring. The lease cannot be renewed, and
# ends with the token that read it at the latest.
path "mdi/key" {
  capabilities = ["read"]
}
