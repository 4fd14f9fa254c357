// SPDX-License-Identifier: MPL-2.0

package check

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

const (
	metricsFile = "../prometheus/mdi.prom.ctmpl"
	alertsFile  = "../prometheus/alerts.yml"
	statusPath  = "mdi/status"
)

type status = map[string]any

// TestAlerts renders the metrics of a status that differs from a healthy one, and
// evaluates the expressions of all alerts on them.
func TestAlerts(t *testing.T) {
	now := time.Now()
	in := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	const day = 24 * time.Hour
	cases := map[string]struct {
		status status
		alerts []string
	}{
		"healthy":                       {},
		"rotation is due":               {status{"due": []any{"rotation"}}, []string{"MdiWorkOverdue"}},
		"retirement is due":             {status{"due": []any{"retirement"}}, []string{"MdiWorkOverdue"}},
		"comparison is due":             {status{"due": []any{"drift-check"}}, nil},
		"intent is due":                 {status{"due": []any{"intent"}}, []string{"MdiIntentUnsettled"}},
		"intent and rotation":           {status{"due": []any{"intent", "rotation"}}, []string{"MdiIntentUnsettled", "MdiWorkOverdue"}},
		"an operator's rotation is due": {status{"due": []any{"rotate-key"}}, []string{"MdiRotateKeyUnconfirmed"}},
		"unreadable":                    {status{"unreadable": []any{"key"}}, []string{"MdiStorageUnreadable"}},
		"two failures":                  {status{"consecutive_failures": 2}, nil},
		"three failures":                {status{"consecutive_failures": 3}, []string{"MdiRegenerationFails"}},
		"one more missed":               {status{"missed_rotations": 1}, []string{"MdiRotationMissed"}},
		"regenerated in the portal":     {status{"drift_result": "external"}, []string{"MdiKeyRegeneratedElsewhere"}},
		"not compared":                  {status{"drift_result": "failed"}, []string{"MdiKeySharedUnchecked"}},
		"stale":                         {status{"drift_result": "stale"}, nil},
		"root fails twice":              {status{"root_consecutive_failures": 2}, nil},
		"root fails three times":        {status{"root_consecutive_failures": 3}, []string{"MdiRootRotationFails"}},
		"root ends in eight days":       {status{"root_credential_expires_at": in(8 * day)}, nil},
		"root ends in six days":         {status{"root_credential_expires_at": in(6 * day)}, []string{"MdiRootCredentialExpires"}},
		"paused":                        {status{"disable_automated_rotation": true}, []string{"MdiAutomatedRotationDisabled"}},
		"state failing":                 {status{"state": "failing: the key could not be regenerated, see last_error"}, []string{"MdiFailing"}},
		"state attention":               {status{"state": "attention: rotation and retirement are paused, see disable_automated_rotation"}, []string{"MdiNeedsAttention"}},
		"state unconfigured":            {status{"state": "unconfigured: write tenant_id, client_id and a credential to config"}, nil},
	}
	e := configured(t)
	e.read("key")
	healthy := e.read("status")
	before := metrics(t, healthy)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, use{op: "read", path: "status", out: keys(c.status)}.wrong(e.openAPI()))
			changed := maps.Clone(healthy)
			maps.Copy(changed, c.status)
			require.Equal(t, c.alerts, firing(t, now, samples{now.Add(-10 * time.Minute): before, now: metrics(t, changed)}))
		})
	}
	t.Run("no longer read", func(t *testing.T) {
		later := now.Add(11 * time.Minute)
		require.Equal(t, []string{"MdiStatusUnknown"}, firing(t, later, samples{later: before}))
	})
	t.Run("of an engine without a state", func(t *testing.T) {
		older := maps.Clone(healthy)
		delete(older, "state")
		require.NotContains(t, metrics(t, older), "mdi_state")
	})
	t.Run("no longer scraped", func(t *testing.T) {
		require.Equal(t, []string{"MdiStatusUnknown"}, firing(t, now, samples{}))
	})
}

// TestMetricsOfAMountWithoutConfiguration has a status with hardly any fields.
func TestMetricsOfAMountWithoutConfiguration(t *testing.T) {
	families := metrics(t, newEngine(t).read("status"))
	require.Zero(t, families["mdi_configured"].Metric[0].GetGauge().GetValue())
	require.NotContains(t, families, "mdi_key_regenerated_timestamp_seconds")
}

// TestMetricsOfTheDocumentedConditions checks that there is a metric for each condition in
// the table of docs/operate.md.
func TestMetricsOfTheDocumentedConditions(t *testing.T) {
	_, table, found := strings.Cut(readFile(t, "../../../docs/operate.md"), "| condition | means |")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	metrics, checked := readFile(t, metricsFile), 0
	for row := range strings.Lines(strings.TrimSpace(table)) {
		for _, field := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(strings.SplitN(row, "|", 3)[1], -1) {
			switch field[1] {
			case "rotation", "retirement", "intent", "external", "failed", "failing", "attention": // values
			default:
				require.Contains(t, metrics, field[1])
				checked++
			}
		}
	}
	require.NotZero(t, checked)
}

// metrics renders the template, and parses it as node_exporter does.
func metrics(t *testing.T, data status) map[string]*dto.MetricFamily {
	t.Helper()
	text := rendered(t, data)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err, text)
	return families
}

// rendered renders the template as Vault Agent does.
func rendered(t *testing.T, data status) string {
	t.Helper()
	tmpl, err := template.NewTemplate(&template.NewTemplateInput{Contents: readFile(t, metricsFile), ErrMissingKey: true})
	require.NoError(t, err)
	query, err := dependency.NewVaultReadQuery(statusPath)
	require.NoError(t, err)
	brain := template.NewBrain()
	brain.Remember(query, &dependency.Secret{Data: data})
	result, err := tmpl.Execute(&template.ExecuteInput{Brain: brain})
	require.NoError(t, err)
	require.Zero(t, result.Missing.Len(), "the template reads more than the status")
	return string(result.Output)
}

// firing returns the names of the alerts whose expression holds, sorted.
func firing(t *testing.T, at time.Time, scraped samples) []string {
	t.Helper()
	parse := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.LegacyValidation, parse, promslog.NewNopLogger())
	require.Empty(t, errs)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: time.Minute, Parser: parse})
	var names []string
	for _, rule := range groups.Groups[0].Rules {
		query, err := engine.NewInstantQuery(t.Context(), scraped.queryable(), nil, rule.Expr, at)
		require.NoError(t, err)
		result := query.Exec(t.Context())
		require.NoError(t, result.Err, rule.Alert)
		vector, err := result.Vector()
		require.NoError(t, err)
		if len(vector) > 0 {
			names = append(names, rule.Alert)
		}
	}
	slices.Sort(names)
	return names
}
