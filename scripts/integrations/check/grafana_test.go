// SPDX-License-Identifier: MPL-2.0

package check

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const dashboardFile = "../grafana/mdi.json"

// dashboard is what the tests look at of a dashboard in Grafana's format.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []gpanel
}

type gpanel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		RefID, Expr string
		Datasource  struct{ Type, UID string }
	}
	FieldConfig struct {
		Defaults struct {
			NoValue  string
			Mappings []struct {
				Type    string
				Options map[string]struct{ Text, Color string }
			}
		}
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(readFile(t, dashboardFile)), &d))
	require.NotEmpty(t, d.Panels)
	return d
}

// queries returns the dashboard's expressions by the panel's title, as Grafana sends them
// when all hosts are chosen.
func (d dashboard) queries() map[string][]string {
	all := map[string][]string{}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			all[panel.Title] = append(all[panel.Title], strings.ReplaceAll(target.Expr, "$instance", ".*"))
		}
	}
	return all
}

// Each panel has a place of its own, an answer when there is no data, and a source that the
// person chooses. The state comes first: it is what a person on call looks for.
func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, panel := range d.Panels {
		require.NotEmpty(t, panel.Title)
		require.False(t, ids[panel.ID], "%s has the id of another panel", panel.Title)
		ids[panel.ID] = true
		require.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		for x := range panel.GridPos.W {
			for y := range panel.GridPos.H {
				cell := [2]int{panel.GridPos.X + x, panel.GridPos.Y + y}
				require.Empty(t, taken[cell], "%s lies on another panel", panel.Title)
				taken[cell] = panel.Title
			}
		}
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			require.Equal(t, "${datasource}", target.Datasource.UID, panel.Title)
		}
		if panel.Type == "stat" || panel.Type == "table" {
			require.NotEmpty(t, panel.FieldConfig.Defaults.NoValue, "%s: an empty panel says nothing", panel.Title)
		}
	}
	require.Equal(t, "State", taken[[2]int{0, 0}])
	require.Equal(t, "datasource", d.Templating.List[0].Name)
	require.Equal(t, "instance", d.Templating.List[1].Name)
}

// Each metric that the dashboard asks for is one of the recipe, and each of the recipe is
// either shown or, since the state covers it, left to the alerts.
func TestDashboardShowsWhatTheRecipeHas(t *testing.T) {
	metric := regexp.MustCompile(`\bmdi_\w+`)
	shown := strings.Join(metric.FindAllString(readFile(t, dashboardFile), -1), " ")
	covered := map[string]bool{"mdi_unreadable": true, "mdi_key_disclosed": true}
	recipe := readFile(t, metricsFile)
	for _, name := range strings.Fields(shown) {
		require.Contains(t, recipe, "# TYPE "+name+" ")
	}
	for _, declared := range regexp.MustCompile(`# TYPE (\w+)`).FindAllStringSubmatch(recipe, -1) {
		require.True(t, covered[declared[1]] != strings.Contains(shown+" ", declared[1]+" "), declared[1])
	}
}

// Grafana finds the dashboard where docs/integrations.md puts it.
func TestDashboardIsProvisioned(t *testing.T) {
	providers := yamlDocuments(t, "../grafana/provisioning/dashboards/mdi.yml")[0]
	provider := at(t, providers, "providers").([]any)[0]
	folder := at(t, provider, "options", "path").(string)
	require.Contains(t, readFile(t, "../../../docs/integrations.md"), "cp scripts/integrations/grafana/"+filepath.Base(dashboardFile)+" "+folder)
	sources := yamlDocuments(t, "../grafana/provisioning/datasources/mdi.yml")[0]
	require.Equal(t, "prometheus", at(t, at(t, sources, "datasources").([]any)[0], "type"))
}
