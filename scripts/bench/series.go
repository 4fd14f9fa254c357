// SPDX-License-Identifier: MPL-2.0

package main

import "example.com/vault-plugin-secrets-mdi/scripts/internal/figures"

// series are figures by the name of the engine: one of each round. Those of the same
// round were measured one right after the other.
type series map[string][]float64

func (s series) add(name string, figure float64) { s[name] = append(s[name], figure) }

// summary is that of one engine.
func (s series) summary(name string) figures.Summary { return figures.Summarise(s[name]) }

// ratio is what an engine's figures are to those of another one. Whatever slows the machine
// down for longer than a round changes both, and so not their ratio.
func (s series) ratio(of, to string) figures.Summary {
	return figures.Summarise(quotients(s[of], s[to]))
}

// quotients divides figures by those of the same rounds.
func quotients(of, by []float64) []float64 {
	var found []float64
	for i := range min(len(of), len(by)) {
		found = append(found, of[i]/by[i])
	}
	return found
}
