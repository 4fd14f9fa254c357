# Monitor: checks the health of the engine.
#
# Reading the status changes nothing and returns no secret. The key's fingerprint in it is
# a salted HMAC, from which the key cannot be guessed.
path "mdi/status" {
  capabilities = ["read"]
}
