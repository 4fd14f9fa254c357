// SPDX-License-Identifier: MPL-2.0

// Package check has tests for the examples in the folders beside it, so that they
// cannot go stale: `make integrations-check` runs them.
//
//   - What an example reads or writes below mdi/, and each field of it, is looked up in
//     the OpenAPI document of the engine.
//   - What Terraform would write is written to an engine, and read back as Terraform
//     does: a difference would be a change in every plan.
//   - The metrics are rendered by the template engine of Vault Agent from the status of
//     an engine, and Prometheus evaluates the alerts on them.
//   - The workflow is linted, the scripts in both pipelines are run with stand-ins for
//     the programs that they call, and the Kubernetes resources are validated against
//     the definitions of External Secrets Operator.
//
// What needs a real Vault, signing in with an ID token and Vault Agent, are scenarios of
// backend/acceptance: pipeline, windows-agent and metrics.
package check
