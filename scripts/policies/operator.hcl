# Operator: owns the connection to Microsoft and is responsible for the key.

# The configuration has the tenant and the credential. Its secrets can be written, but
# not read.
path "mdi/config" {
  capabilities = ["create", "read", "update", "patch", "delete"]
}

# Each read regenerates the tenant's key. To check the engine, read mdi/status instead.
path "mdi/key" {
  capabilities = ["read"]
}

# Roles set the terms on which hosts get the key.
path "mdi/roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "mdi/key/*" {
  capabilities = ["read"]
}

# Which version of the key is current, without a lease.
path "mdi/key-version" {
  capabilities = ["read"]
}

path "mdi/deployment-package" {
  capabilities = ["read"]
}

# Break-glass: a new key, which the engine discloses to nobody.
path "mdi/rotate-key" {
  capabilities = ["update"]
}

# A new secret or certificate of the app, which the engine does not disclose.
path "mdi/rotate-root" {
  capabilities = ["update"]
}

path "mdi/status" {
  capabilities = ["read"]
}

# End a lease early, by its id. Only leases of this engine: sys/leases/revoke alone would
# also allow ending those of other engines.
path "sys/leases/revoke/mdi/*" {
  capabilities = ["update"]
}

# End all leases on the key, or those under one role, at once. Vault requires sudo, since
# there can be many.
path "sys/leases/revoke-prefix/mdi/*" {
  capabilities = ["update", "sudo"]
}

# Look up a lease by its id, which shows when it ends, but not the key. The id is in the
# body of the request, so this cannot be restricted to leases of this engine; Vault's
# default policy allows the same.
path "sys/leases/lookup" {
  capabilities = ["update"]
}
