// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/figures"
)

const (
	// fewest is the number of leases at the first stage; each has ten times as many as the one
	// before.
	fewest = 100

	// sampled is the number of reads at a stage, of the engine, of the baseline and of the status.
	sampled = 50

	// manyRoles and manyVersions come on top of the leases of the last stage.
	manyRoles    = 1000
	manyVersions = 20

	// apart is the time between two regenerations, of which the engine sends Graph one a second.
	apart = 1100 * time.Millisecond

	// ticksWithin is how long a tick can take to come: Vault has one a minute.
	ticksWithin = 2 * time.Minute

	statusName = "status"
)

// telemetry has Vault time the ticks of each mount.
var telemetry = map[string]any{
	"telemetry": map[string]any{"prometheus_retention_time": "1h", "add_mount_point_rollback_metrics": true},
}

// stage is what the engine needs at a size.
type stage struct {
	size   string
	times  series        // milliseconds of single reads
	start  time.Duration // from the request to restart the plugin until the first read
	memory int           // bytes, before the restart
	tick   time.Duration // 0: there was none
}

// grow gives the engine more and more leases on one key, and measures it at each stage.
func (v *env) grow(ctx context.Context, res *result) error {
	for size := fewest; size <= v.scale; size *= 10 {
		if err := v.fill(ctx, size); err != nil {
			return err
		}
		s, err := v.stage(ctx, fmt.Sprint(size), size == fewest)
		if err != nil {
			return err
		}
		if s.start, err = v.restart(ctx, v.engine); err != nil {
			return err
		}
		res.stages = append(res.stages, s)
	}
	start, err := v.supersede(ctx)
	if err != nil {
		return err
	}
	s, err := v.stage(ctx, fmt.Sprintf("… %d roles, %d versions", manyRoles, manyVersions), true)
	s.start = start
	res.churned = s
	return err
}

// fill adds leases until the reads of a stage are still missing.
func (v *env) fill(ctx context.Context, size int) error {
	live, err := v.live(ctx)
	if err != nil {
		return err
	}
	missing := size - sampled - live
	command.Progress("adding %d leases for a stage of %d", missing, size)
	if _, err := v.everyClient(ctx, v.engine.path(0), func(before int) bool { return before < missing }); err != nil {
		return err
	}
	if live, err = v.live(ctx); err == nil && live != size-sampled {
		err = fmt.Errorf("%d live leases instead of %d", live, size-sampled)
	}
	return err
}

// live is the number of live leases on the current key, as the engine reports it.
func (v *env) live(ctx context.Context) (int, error) {
	var answer struct {
		Data struct {
			Leases int `json:"live_leases"`
		}
	}
	err := v.vault.Call(ctx, http.MethodGet, v.engine.mount+"/status", nil, &answer)
	return answer.Data.Leases, err
}

// stage measures the engine at its present size. The baseline is read in turn, since Vault
// has more to do as well. A tick can take a minute to come, so it is left out in between.
func (v *env) stage(ctx context.Context, size string, withTick bool) (stage, error) {
	s := stage{size: size, times: series{}}
	for range sampled {
		for _, one := range []struct{ name, path string }{
			{baselineName, v.baseline.path(0)}, {engineName, v.engine.path(0)}, {statusName, v.engine.mount + "/status"},
		} {
			took, err := read(ctx, v.vault.Client, one.path)
			if err != nil {
				return s, err
			}
			s.times.add(one.name, milliseconds(took))
		}
	}
	var err error
	if s.memory, err = v.vault.Process().ResidentMemory(v.engine.program()); err == nil && withTick {
		s.tick, err = v.tick(ctx)
	}
	return s, err
}

// supersede adds roles, and regenerates the key again and again while all leases live. It
// restarts the plugin in between, and returns the time until the first read after that.
func (v *env) supersede(ctx context.Context) (start time.Duration, err error) {
	command.Progress("adding %d roles and %d versions", manyRoles, manyVersions)
	role := map[string]any{"ttl": leaseTTL.String()}
	if err := writeRoles(ctx, v.vault, v.engine.mount+"/roles/further-", manyRoles, role); err != nil {
		return 0, err
	}
	for version := range manyVersions {
		if version == manyVersions/2 {
			if start, err = v.restart(ctx, v.engine); err != nil {
				return 0, err
			}
		}
		if err := command.Pause(ctx, apart); err != nil {
			return 0, err
		}
		if _, err := read(ctx, v.clients[0], v.engine.callingPath(0)); err != nil {
			return 0, err
		}
	}
	return start, nil
}

// tick waits for Vault's next call of the engine's periodic work and returns how long it
// took.
func (v *env) tick(ctx context.Context) (time.Duration, error) {
	command.Progress("waiting for a tick")
	ctx, cancel := context.WithTimeout(ctx, ticksWithin)
	defer cancel()
	before, first, err := v.ticks(ctx)
	for err == nil {
		var took float64
		var ticks int
		if took, ticks, err = v.ticks(ctx); ticks > first {
			return time.Duration((took - before) / float64(ticks-first) * float64(time.Millisecond)), err
		}
		err = command.Pause(ctx, pollInterval)
	}
	return 0, err
}

// tickTotals are the metrics of the ticks of the mount mdi.
var tickTotals = regexp.MustCompile(`(?m)^vault_rollback_attempt_mdi__(sum|count) (\S+)$`)

// ticks returns how long all ticks took, in milliseconds, and their number.
func (v *env) ticks(ctx context.Context) (took float64, n int, err error) {
	resp, err := v.vault.Send(ctx, http.MethodGet, "sys/metrics?format=prometheus", nil)
	if err != nil {
		return 0, 0, err
	}
	for _, found := range tickTotals.FindAllStringSubmatch(string(resp.Body), -1) {
		value, err := strconv.ParseFloat(found[2], 64)
		if err != nil {
			return 0, 0, err
		}
		if found[1] == "sum" {
			took = value
		} else {
			n = int(value)
		}
	}
	return took, n, nil
}

// curve is the table of all stages.
func (r *result) curve() *figures.Table {
	t := &figures.Table{}
	t.Row("live leases", "baseline's read", "read", "status", "tick", "memory", "restart to first read")
	for _, s := range append(r.stages, r.churned) {
		time := func(name string) string { return format(inMilliseconds).with(s.times.summary(name)) }
		tick := none
		if s.tick > 0 {
			tick = figures.Milliseconds(s.tick)
		}
		t.Row(s.size, time(baselineName), time(engineName), time(statusName), tick, figures.Megabytes(float64(s.memory), 1), figures.Milliseconds(s.start))
	}
	return t
}

// curveTargets compares the last stage with the first. Reads are compared as multiples of the
// baseline's at the same stage.
func (r *result) curveTargets(s *sheet) {
	if len(r.stages) < 2 {
		return
	}
	first, last := r.stages[0], r.stages[len(r.stages)-1]
	row := func(what string, before, after []float64, f format, t target) {
		growth := figures.Summarise(quotients(after, before))
		s.row([]any{
			fmt.Sprintf("%s, %s leases beside %s", what, last.size, first.size), f(figures.Summarise(before).Median),
			f(figures.Summarise(after).Median), spread(growth), t, t.verdict(growth.Median),
		}, none, none)
	}
	multiples := func(s stage) []float64 { return quotients(s.times[engineName], s.times[baselineName]) }
	times := func(x float64) string { return fmt.Sprintf("× %.2f", x) }
	row("read", multiples(first), multiples(last), times, target{limit: grownReadTarget})
	row("status", first.times[statusName], last.times[statusName], inMilliseconds, target{limit: grownStatusTarget})
}
