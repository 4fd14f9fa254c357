terraform {
  required_version = ">= 1.5"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.0"
    }
  }
}

# Address and token come from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}
