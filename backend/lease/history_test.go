// SPDX-License-Identifier: MPL-2.0

package lease_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/lease"
)

// Random histories of one or two processes on a storage that fails, lies, is late and slow.
// After each step every lease that was returned and has not ended is on record, and who
// recorded it, or could have seen it, holds it for live. When storage has worked for a while,
// there is no other live lease in the eyes of anybody.
func TestHistories(t *testing.T) {
	steps := map[string]int{}
	for range 5 { // days, of which each has place for some dozens of histories
		synctest.Test(t, func(t *testing.T) {
			rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
				w := &ledgerWorld{T: rt, ctx: t.Context(), steps: steps, storage: &fatefulStorage{fate: works}, version: 1, slack: map[int]int{}}
				w.begin()
				rt.Repeat(map[string]func(*rapid.T){
					"add": w.add, "remove": w.remove, "again": w.removeAgain, "withdraw": w.withdraw,
					"storage": w.changeFate, "wait": w.wait, "prune": w.prune, "forget": w.forget,
					"restart": w.restart, "successor": w.successor, "heal": func(*rapid.T) { w.heal() },
					"": func(*rapid.T) { w.check() },
				})
				w.heal()
			})
		})
	}
	t.Logf("steps: %v", steps)
}

// ledgerWorld is the model: which leases must be live.
type ledgerWorld struct {
	*rapid.T
	ctx       context.Context
	steps     map[string]int
	storage   *fatefulStorage
	version   int
	processes []*process // the active one is the last
	live      []*modelLease
	ended     []*modelLease
	slack     map[int]int // how many of a version's records a process has left behind when it was killed
	overlap   bool        // since the last time that all was well two processes were at work
}

func (p *process) String() string { return fmt.Sprintf("%p", p) }

type process struct {
	*lease.Ledger
	begun     time.Time
	seen      time.Time // when it has last listed what others have recorded
	unsettled map[int]int
}

type modelLease struct {
	version int
	id      string
	end     time.Time
	by      *process
	at      time.Time
}

func (w *ledgerWorld) begin() {
	w.processes = append(w.processes, &process{Ledger: lease.New(), begun: time.Now(), unsettled: map[int]int{}})
}

func (w *ledgerWorld) anyProcess(t *rapid.T) *process {
	return rapid.SampledFrom(w.processes).Draw(t, "process")
}

// context draws for how long a caller waits.
func (w *ledgerWorld) context(t *rapid.T) (context.Context, context.CancelFunc) {
	d := rapid.SampledFrom([]time.Duration{0, time.Millisecond, 2 * time.Second, time.Minute, time.Minute}).Draw(t, "patience")
	return context.WithTimeout(w.ctx, d)
}

func (w *ledgerWorld) add(t *rapid.T) {
	p, version := w.anyProcess(t), max(1, w.version-rapid.IntRange(0, 1).Draw(t, "older"))
	ttl := rapid.SampledFrom([]time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "ttl")
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	for range rapid.IntRange(1, 4).Draw(t, "readers") {
		ctx, cancel := w.context(t)
		all.Go(func() {
			defer cancel()
			l := &modelLease{version: version, end: time.Now().Add(ttl), by: p}
			id, err := p.Add(ctx, w.storage, version, l.end)
			mu.Lock()
			defer mu.Unlock()
			w.steps[fmt.Sprint("added: ", err == nil)]++
			if err != nil {
				p.unsettled[version]++
				return
			}
			l.id, l.at = id, time.Now()
			w.live = append(w.live, l)
		})
	}
	all.Wait()
}

// remove ends some leases at the same time.
func (w *ledgerWorld) remove(t *rapid.T) {
	p := w.anyProcess(t)
	var all sync.WaitGroup
	for range rapid.IntRange(1, 4).Draw(t, "leases") {
		l := w.end(t)
		if l == nil {
			break
		}
		ctx, cancel := w.context(t)
		p.unsettled[l.version]++
		all.Go(func() { defer cancel(); _ = p.Remove(ctx, w.storage, l.version, l.id) })
	}
	w.steps["removed"]++
	all.Wait()
}

// end takes a lease out of the model.
func (w *ledgerWorld) end(t *rapid.T) *modelLease {
	if len(w.live) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(w.live)-1).Draw(t, "lease")
	l := w.live[i]
	w.live = slices.Delete(w.live, i, i+1)
	w.ended = append(w.ended, l)
	return l
}

func (w *ledgerWorld) removeAgain(t *rapid.T) {
	if len(w.ended) == 0 {
		t.Skip("none has ended")
	}
	l, p := rapid.SampledFrom(w.ended).Draw(t, "lease"), w.anyProcess(t)
	ctx, cancel := w.context(t)
	defer cancel()
	_ = p.Remove(ctx, w.storage, l.version, l.id)
	w.steps["removed again"]++
}

func (w *ledgerWorld) withdraw(t *rapid.T) {
	l := w.end(t)
	if l == nil {
		t.Skip("there is none")
	}
	p := w.anyProcess(t)
	p.Discard(w.storage, l.version, l.id)
	p.unsettled[l.version]++
	w.steps["discarded"]++
}

func (w *ledgerWorld) changeFate(t *rapid.T) {
	fate := rapid.SampledFrom([]string{works, works, fails, lies, late, slow, mixed}).Draw(t, "fate")
	w.storage.set(fate, rapid.IntRange(0, 100).Draw(t, "delay"))
	w.steps["storage "+fate]++
}

func (w *ledgerWorld) wait(t *rapid.T) {
	time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 6, 70, 130, 700}).Draw(t, "seconds")) * time.Second)
}

func (w *ledgerWorld) prune(t *rapid.T) {
	ctx, cancel := w.context(t)
	defer cancel()
	w.steps["pruned"]++
	w.pruneBy(ctx, w.anyProcess(t))
}

func (w *ledgerWorld) pruneBy(ctx context.Context, p *process) {
	if begun := time.Now(); p.Prune(ctx, w.storage, all, begun) == nil {
		p.seen = begun
	}
}

func all(int) bool { return true }

func (w *ledgerWorld) forget(t *rapid.T) {
	w.anyProcess(t).Forget()
	w.steps["forgotten"]++
}

// restart kills the processes and starts another one, which has another version to begin with.
func (w *ledgerWorld) restart(*rapid.T) {
	time.Sleep(time.Minute) // nothing is under way
	synctest.Wait()
	w.kill(len(w.processes))
	w.begin()
	w.steps["restarted"]++
}

// kill ends the oldest processes. What they had still to do is not done.
func (w *ledgerWorld) kill(n int) {
	for _, p := range w.processes[:n] {
		for v, n := range p.unsettled {
			w.slack[v] += n
		}
	}
	w.processes = w.processes[n:]
	w.version++
}

// successor starts a process beside the active one, which goes on for a minute.
func (w *ledgerWorld) successor(t *rapid.T) {
	if len(w.processes) > 1 {
		t.Skip("there are two")
	}
	w.begin()
	w.overlap = true
	w.steps["succeeded"]++
}

// heal lets storage work until all is well, and demands that it is.
func (w *ledgerWorld) heal() {
	w.storage.set(works, 0)
	for range 3 { // those who are at work learn of each other
		time.Sleep(settled)
		synctest.Wait()
		for _, p := range w.processes {
			w.pruneBy(w.ctx, p)
			require.Equal(w, time.Now(), p.seen)
		}
		synctest.Wait()
	}
	w.overlap = false
	for _, p := range w.processes {
		clear(p.unsettled)
	}
	w.steps["healed"]++
	w.check()
	for v := 1; v <= w.version; v++ {
		for _, l := range append(w.ledgers(), lease.New()) {
			n, err := l.Live(w.ctx, w.storage, v, time.Now())
			require.NoError(w, err)
			w.between(v, n)
		}
	}
}

func (w *ledgerWorld) ledgers() (ledgers []*lease.Ledger) {
	for _, p := range w.processes {
		ledgers = append(ledgers, p.Ledger)
	}
	return ledgers
}

// between demands a number of live leases, but for what killed processes have left behind.
func (w *ledgerWorld) between(version, live int) {
	least, most := 0, w.slack[version]
	for _, l := range w.live {
		if l.version == version && l.end.After(time.Now()) {
			least++
		}
		if l.version == version && l.end.Add(lease.PageSpan).After(time.Now()) {
			most++
		}
	}
	require.LessOrEqual(w, least, live, "version %d", version)
	require.GreaterOrEqual(w, most, live, "version %d", version)
}

// check demands that every live lease is on record, and known to those who can know it. One
// process alone also knows of no other.
func (w *ledgerWorld) check() {
	synctest.Wait()
	if n := len(w.processes); n > 1 && time.Since(w.processes[n-1].begun) > time.Minute {
		w.kill(1)
	}
	for _, l := range w.live {
		if l.end.After(time.Now()) {
			require.True(w, w.storage.has(w.ctx, l), "%s of version %d is lost", l.id, l.version)
		}
	}
	fate := w.storage.pause()
	defer w.storage.resume(fate)
	for _, p := range w.processes {
		for v := 1; v <= w.version; v++ {
			now := time.Now()
			held, err := p.Held(w.ctx, w.storage, v, now)
			require.NoError(w, err)
			isHeld := slices.ContainsFunc(w.live, func(l *modelLease) bool {
				return l.version == v && l.end.After(time.Now()) && (l.by == p || l.at.Before(p.seen))
			})
			require.True(w, held || !isHeld, "version %d is held", v)
			if !w.overlap && time.Now().Equal(now) { // else it had to wait, and a page may have ended meanwhile
				n, err := p.Live(w.ctx, w.storage, v, time.Now())
				require.NoError(w, err)
				require.Equal(w, n > 0, held)
				w.between(v, n)
			}
		}
	}
}

// The ways of a storage.
const (
	works = "works"
	fails = "fails"
	lies  = "lies" // says that a write failed which it has carried out
	late  = "late" // says so at once, and carries it out later
	slow  = "slow" // takes its time; a write whose caller has left may be carried out later
	mixed = "mixed"
)

// fatefulStorage is one that does all that. Reads only fail or are slow.
type fatefulStorage struct {
	logical.InmemStorage

	mu    sync.Mutex
	fate  string
	delay time.Duration
	count int
}

var errFate = errors.New("the storage says that this has failed")

func (s *fatefulStorage) set(fate string, seconds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate, s.delay = fate, time.Duration(seconds)*time.Second
}

// pause makes the storage work for a moment.
func (s *fatefulStorage) pause() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	fate := s.fate
	s.fate = works
	return fate
}

func (s *fatefulStorage) resume(fate string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate = fate
}

func (s *fatefulStorage) next() (string, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if s.fate == mixed {
		return []string{works, fails, lies, late, works, slow, works}[s.count%7], s.delay
	}
	return s.fate, s.delay
}

func (s *fatefulStorage) write(ctx context.Context, do func() error) error {
	switch fate, delay := s.next(); fate {
	case fails:
		return errFate
	case lies:
		_ = do()
		return errFate
	case late:
		time.AfterFunc(delay, func() { _ = do() })
		return errFate
	case slow:
		select {
		case <-ctx.Done():
			time.AfterFunc(delay, func() { _ = do() })
			return ctx.Err()
		case <-time.After(delay / 8):
		}
	}
	return do()
}

func (s *fatefulStorage) read(ctx context.Context) error {
	switch fate, delay := s.next(); fate {
	case fails:
		return errFate
	case slow:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay / 8):
		}
	}
	return nil
}

func (s *fatefulStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.write(ctx, func() error { return s.InmemStorage.Put(context.WithoutCancel(ctx), entry) })
}

func (s *fatefulStorage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, func() error { return s.InmemStorage.Delete(context.WithoutCancel(ctx), key) })
}

func (s *fatefulStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	return s.InmemStorage.Get(context.WithoutCancel(ctx), key)
}

func (s *fatefulStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(context.WithoutCancel(ctx), prefix)
}

// has reports whether a lease is on record, as storage has it.
func (s *fatefulStorage) has(ctx context.Context, l *modelLease) bool {
	page, number, _ := strings.Cut(l.id, ".")
	slot, _ := strconv.Atoi(number)
	folder := lease.Prefix + strconv.Itoa(l.version) + "/"
	names, _ := s.InmemStorage.List(ctx, folder)
	isSet := func(name, field string) bool {
		entry, _ := s.InmemStorage.Get(ctx, folder+name)
		var content map[string][]byte
		if entry == nil || entry.DecodeJSON(&content) != nil || len(content[field]) <= slot/8 {
			return false
		}
		return content[field][slot/8]&(1<<(slot%8)) != 0
	}
	return isSet(page, "live") && !slices.ContainsFunc(names, func(name string) bool {
		return strings.HasPrefix(name, page+"-") && isSet(name, "removed")
	})
}
