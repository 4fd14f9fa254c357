# Operator: owns the connection to Microsoft and answers for the key.

# The configuration decides which tenant the engine talks to, and with which
# credential. Secrets in it can be written, but not read back.
path "mdi/config" {
  capabilities = ["create", "read", "update", "patch", "delete"]
}

# Each read regenerates the tenant's key: to see that the engine works, read
# mdi/status instead.
path "mdi/key" {
  capabilities = ["read"]
}

# Roles decide on which terms others get the key.
path "mdi/roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "mdi/key/*" {
  capabilities = ["read"]
}

path "mdi/deployment-package" {
  capabilities = ["read"]
}

# Break-glass: a new key that nobody knows.
path "mdi/rotate-key" {
  capabilities = ["update"]
}

# A new secret or certificate of the app, which nobody gets to see.
path "mdi/rotate-root" {
  capabilities = ["update"]
}

path "mdi/status" {
  capabilities = ["read"]
}

# End a lease early, by its id. Only this engine's: sys/leases/revoke alone would
# allow to end those of every engine.
path "sys/leases/revoke/mdi/*" {
  capabilities = ["update"]
}

# End all leases on the key, or those under one role, at once. Vault asks for sudo
# because there can be many.
path "sys/leases/revoke-prefix/mdi/*" {
  capabilities = ["update", "sudo"]
}

# Look up a lease by its id, which shows when it ends and not the key. The id goes
# into the body of the request, so this is not only for this engine's leases;
# Vault's default policy allows the same.
path "sys/leases/lookup" {
  capabilities = ["update"]
}
