# Monitor: whoever wants to know whether the engine is well.
#
# The status holds no secret and changes nothing; the key's fingerprint in it is a
# salted HMAC, from which the key cannot be guessed.
path "mdi/status" {
  capabilities = ["read"]
}
