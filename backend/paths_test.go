// SPDX-License-Identifier: MPL-2.0

package backend

import "example.com/vault-plugin-secrets-mdi/backend/event"

// Paths, as tests use them.
const (
	keyVersionPath        = "key-version"
	rotateKeyPath         = "rotate-key"
	rotateRootPath        = event.PathRotateRoot
	statusPath            = event.PathStatus
	deploymentPackagePath = "deployment-package"
)

// Fields of mdi/key, and what its leases remember, as tests use them.
const (
	fieldDeploymentAccessKey = "deployment_access_key"
	fieldReused              = "reused"
	internalKeyVersion       = "key_version"
	internalLeaseID          = "ledger_id"
)
