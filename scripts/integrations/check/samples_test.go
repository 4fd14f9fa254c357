// SPDX-License-Identifier: MPL-2.0

package check

import (
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// samples are metrics by the time when they were scraped.
type samples map[time.Time]map[string]*dto.MetricFamily

// queryable returns a storage of Prometheus with the samples.
func (s samples) queryable() storage.Queryable {
	all := s.series()
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			var matching []storage.Series
			for _, one := range all {
				if labels.Selector(matchers).Matches(one.Metric) {
					matching = append(matching, promql.NewStorageSeries(*one))
				}
			}
			return &seriesSet{rest: matching}
		},
	}}
}

// series returns the samples by their labels, in order of time.
func (s samples) series() map[string]*promql.Series {
	all := map[string]*promql.Series{}
	for _, at := range slices.SortedFunc(maps.Keys(s), time.Time.Compare) {
		for name, family := range s[at] {
			for _, metric := range family.Metric {
				set := labelSet(name, metric)
				if all[set.String()] == nil {
					all[set.String()] = &promql.Series{Metric: set}
				}
				one := all[set.String()]
				one.Floats = append(one.Floats, promql.FPoint{
					T: at.UnixMilli(),
					F: metric.GetGauge().GetValue() + metric.GetCounter().GetValue(),
				})
			}
		}
	}
	return all
}

func labelSet(name string, metric *dto.Metric) labels.Labels {
	set := map[string]string{model.MetricNameLabel: name}
	for _, label := range metric.Label {
		set[label.GetName()] = label.GetValue()
	}
	return labels.FromMap(set)
}

// seriesSet iterates over series.
type seriesSet struct {
	at   storage.Series
	rest []storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *seriesSet) At() storage.Series              { return s.at }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }
