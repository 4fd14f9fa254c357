// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// chart compares the engines in one respect, as plot/ draws it.
type chart struct {
	Title string
	Bars  []bar
}

// bar is an engine's figure with its interval.
type bar struct {
	Name             string
	Value, Low, High float64
}

// charts are those of what engines do in a second.
func (r *result) charts() []chart {
	of := func(title string, rates series) chart {
		c := chart{Title: title}
		for _, name := range r.names() {
			s := rates.summary(name)
			c.Bars = append(c.Bars, bar{name, s.Median, s.Low, s.High})
		}
		return c
	}
	return []chart{of("Reads of a shared key, a second", r.shared.rates), of("Revocations in one request, a second", r.sync.rates)}
}

// draw draws charts into the SVG file beside a document.
func (s *suite) draw(ctx context.Context, document string, charts []chart) error {
	text, encoding := json.Marshal(charts)
	target, err := filepath.Abs(strings.TrimSuffix(document, filepath.Ext(document)) + ".svg")
	source := filepath.Join(s.dir, "charts.json")
	if err := errors.Join(encoding, err, os.WriteFile(source, text, 0o600)); err != nil {
		return err
	}
	_, err = testbed.Output(ctx, filepath.Join(s.programs.Root, "scripts", "bench", "plot"), nil, "go", "run", ".", source, target)
	return err
}
