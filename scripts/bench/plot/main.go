// SPDX-License-Identifier: MPL-2.0

// Command plot draws bars with error bars, a chart beside the other, from a JSON file
// into an SVG file. Its arguments are the two files.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart compares engines in one respect.
type chart struct {
	Title string
	Bars  []bar
}

// bar is an engine's figure with its interval.
type bar struct {
	Name             string
	Value, Low, High float64
}

const (
	width  = 12 * vg.Inch
	height = 3 * vg.Inch
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	text, err := os.ReadFile(from) //nolint:gosec // the caller names the file
	if err != nil {
		return err
	}
	var charts []chart
	if err := json.Unmarshal(text, &charts); err != nil {
		return err
	}
	plot.DefaultFont.Variant = "Sans"
	canvas := vgsvg.New(width, height)
	page := draw.New(canvas)
	page.SetColor(color.White) // legible on a dark page too
	page.Fill(page.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(charts), PadX: vg.Points(24), PadTop: vg.Points(8), PadBottom: vg.Points(8), PadLeft: vg.Points(8), PadRight: vg.Points(16)}
	for i, c := range charts {
		p, err := c.plot()
		if err != nil {
			return err
		}
		p.Draw(tiles.At(page, i, 0))
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Whoever looks at it may lack the font: these are as wide.
	drawn := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(to, drawn, 0o600) //nolint:gosec // the caller names the file, which keeps its permissions
}

// plot lays out a chart with the first bar at the top.
func (c chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Title.Padding = c.Title, vg.Points(6)
	p.X.Min = 0
	n := len(c.Bars)
	values, names := make(plotter.Values, n), make([]string, n)
	whiskers := &errors{make(plotter.XYs, n), make(plotter.XErrors, n)}
	for i, b := range c.Bars {
		at := n - 1 - i
		values[at], names[at] = b.Value, b.Name
		whiskers.XYs[at] = plotter.XY{X: b.Value, Y: float64(at)}
		whiskers.XErrors[at].Low, whiskers.XErrors[at].High = b.Low-b.Value, b.High-b.Value
	}
	bars, err := plotter.NewBarChart(values, vg.Points(20))
	if err != nil {
		return nil, err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, color.RGBA{R: 120, G: 160, B: 210, A: 255}, 0
	lines, err := plotter.NewXErrorBars(whiskers)
	if err != nil {
		return nil, err
	}
	lines.Width, lines.CapWidth = vg.Points(1.5), vg.Points(8)
	p.Add(bars, lines)
	p.NominalY(names...)
	p.Y.Padding = vg.Points(20) // for names in a wider font
	return p, nil
}

// errors are points with an interval in the direction of the bars.
type errors struct {
	plotter.XYs
	plotter.XErrors
}
