// SPDX-License-Identifier: MPL-2.0

// Package check tests the examples in the folders beside it, so that they cannot go stale.
// `make integrations-check` runs the tests.
//
//   - The OpenAPI document of the engine must have each path below mdi/ that an example
//     reads or writes, with each field.
//   - The tests write to an engine what Terraform would write, and read it back as
//     Terraform does: a difference would be a change in every plan.
//   - The template engine of Vault Agent renders the metrics from the status of an engine,
//     and Prometheus evaluates the alerts on them.
//   - The installation's script takes what the playbook and the agents pass to it.
//   - The tests run the scripts of both pipelines with fakes of the programs that they
//     call, and validate the Kubernetes resources against the definitions of External
//     Secrets Operator.
//   - The tests lint the workflows of the examples and of this repository, and check that
//     Dependabot looks at each of its modules.
//
// Further tests run the real clients on a real Vault: Vault Agent and Proxy, Terraform or
// OpenTofu, Ansible, hvac, and node_exporter with Prometheus, which is asked all that the
// dashboard asks. What a machine lacks is named at the end of the output, on lines that
// begin with SKIPPED. With MDI_UPDATE_DOCS=1 and Chromium, the tests draw docs/alerts.png.
//
// External Secrets Operator's own code has a module of its own, in external-secrets/check.
//
// Signing in with an ID token and the agents' examples need a real Vault as well: see the
// scenarios pipeline, windows-agent and metrics of backend/acceptance.
package check
