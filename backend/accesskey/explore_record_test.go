// SPDX-License-Identifier: MPL-2.0

package accesskey

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"
)

// rules are the functions that are explored. A mutation replaces one of them by a wrong
// one.
type rules struct {
	begin     func(Record, time.Time) Record
	answered  func(r Record, key, cause string, now time.Time) Record
	refused   func(Record) Record
	lost      func(Record, time.Time) Record
	compared  func(r Record, key string, now time.Time) (Record, string)
	disclosed func(Record) Record
	wanted    func(Record, time.Time) Record
	found     func(Record, time.Time) Record
	decide    func(Record, Terms, Policy, asked, time.Time) decision
	due       func(Record, situation) []string
}

// decision is what a reader may have.
type decision struct {
	first              error
	short, unconfirmed bool
}

func decided(r Record, t Terms, p Policy, a asked, now time.Time) decision {
	l, err := decide(r, t, p, a, now)
	return decision{err, l.Short, l.Unconfirmed}
}

func realRules() rules {
	return rules{
		begin: Record.begin, answered: Record.answered, refused: Record.refused, lost: Record.lost,
		compared: Record.compared, disclosed: Record.disclosed, wanted: Record.wanted, found: Record.found,
		decide: decided, due: due,
	}
}

// A key is a small number, used again when Graph can no longer name the key that had it.
const (
	keyCount = 5
	// A displaced version whose key Graph can no longer name still counts for what is due.
	// All of them are one: those that were known when the POST left, and the others.
	goneKnown = keyCount
	goneLater = keyCount + 1
	none      = keyCount + 2
	allKeys   = none
)

// set is a set of keys.
type set uint8

func (m set) has(k uint8) bool { return k < allKeys && m&(1<<k) != 0 }

func one(k uint8) set {
	if k >= allKeys {
		return 0
	}
	return 1 << k
}

// explorePolicy is the configuration that is explored.
var explorePolicy = Policy{Workspace: home, DriftCheckInterval: driftTicks * tick, Retire: true}

// The times in ticks of the explored world.
const (
	tick       = 30 * time.Second
	driftTicks = 6
	watchTicks = int(watchFor / tick)
	doubtTicks = int(DoubtFor / tick)
)

var exploreSalt = []byte("fourteen bytes") // the shortest that strict FIPS mode allows

// names are the keys as Graph spells them, and exploreMACs their HMACs.
var names, exploreMACs = func() (names [allKeys]string, macs [allKeys][]byte) {
	for k := range names {
		names[k] = string(rune('a' + k))
		macs[k] = Record{Salt: exploreSalt}.mac(names[k])
	}
	return names, macs
}()

// keyOf returns the number of the key with an HMAC.
func keyOf(mac []byte) uint8 {
	for k, other := range exploreMACs {
		if other[0] == mac[0] && slices.Equal(other, mac) {
			return uint8(k)
		}
	}
	return none
}

// memory is what the engine knows: the record, as of noon, and the version that was made
// for the reader of mdi/key who waits, 0 if there is none.
type memory struct {
	Record
	fresh int
}

// facts are what the explorer looks up in a record again and again.
type facts struct {
	own                              uint8
	displaced, superseded, disclosed set
	doubt, underWay, watching        bool
	wanted, unproven, made           bool
	watch, doubtAge, compared        uint8 // in ticks
	traits                           [allKeys]uint16
}

// known are all keys that are versions of the record.
func (f facts) known() set { return one(f.own) | f.displaced }

// library keeps each memory once, by a number, and each transition that was computed. So
// a state of the world holds a number, and few transitions are computed twice.
type library struct {
	rules
	ids     map[string]uint32
	all     []memory
	facts   []facts
	moves   [][opCount]moved
	renamed map[uint64]uint32 // by the memory and the new numbers of the keys
	dues    map[dueOf]dueWork
}

// moved is where a transition leads; not known: it has not been computed yet.
type moved struct {
	known bool
	id    uint32
	found string
}

type dueOf struct {
	id      uint32
	leased  set
	asked   uint8
	failed  bool
	turning bool
}

// dueWork is what is due.
type dueWork struct{ wanted, settle, retire, compare bool }

func newLibrary(r rules) *library {
	l := &library{rules: r, ids: map[string]uint32{}, renamed: map[uint64]uint32{}, dues: map[dueOf]dueWork{}}
	l.intern(memory{}) // 0 is no memory
	return l
}

// The transitions of a memory. Those up to opTick have no key.
const (
	opBegin = iota
	opRefused
	opLost
	opDisclosed
	opWanted
	opFound
	opStored // as storage has it, for a node that will find it
	opMade   // the current version was made for the reader who waits
	opLeft   // no reader waits
	opTick
	opCompared              // with the first key; the other keys follow
	opAnsweredForReader     = opCompared + keyCount
	opAnsweredForRetirement = opAnsweredForReader + keyCount
	opAnsweredForOperator   = opAnsweredForRetirement + keyCount
	opCount                 = opAnsweredForOperator + keyCount
)

// oldAnswer is what is found if a POST was answered with a key from before it.
const oldAnswer = "old answer"

// causes of the answered POSTs.
var exploreCauses = [...]string{forReader: CauseRead, forRetirement: CauseRetired, forOperator: CauseManual}

// move returns where a transition leads.
func (l *library) move(id uint32, op uint8) (uint32, string) {
	to := l.moves[id][op]
	if !to.known {
		m, found := l.compute(l.all[id], op)
		to = moved{true, l.intern(m), found}
		l.moves[id][op] = to
	}
	return to.id, to.found
}

func (l *library) compute(m memory, op uint8) (memory, string) {
	var found string
	switch op {
	case opBegin:
		m.Record = l.begin(m.Record, noon)
	case opRefused:
		m.Record = l.refused(m.Record)
	case opLost:
		m.Record = l.lost(m.Record, noon)
	case opDisclosed:
		m.Record = l.disclosed(m.Record)
	case opWanted:
		m.Record = l.wanted(m.Record, noon)
	case opFound:
		m.Record = l.found(m.Record, noon)
	case opStored:
		m = memory{Record: l.found(m.Record, noon)}
		if m.Watch.On() { // which begins when a node finds it
			m.Watch = watch{Until: noon.Add(watchFor), Unproven: m.Watch.Unproven}
		}
	case opMade:
		m.fresh = m.Version
	case opLeft:
		m.fresh = 0
	case opTick:
		m.Record = older(m.Record)
	default:
		key := names[(op-opCompared)%keyCount]
		if op < opAnsweredForReader {
			m.Record, found = l.compared(m.Record, key, noon)
		} else {
			if m.answered(key, "", noon).Intent.Doubt { // whatever a mutation makes of it
				found = oldAnswer
			}
			m.Record = l.answered(m.Record, key, exploreCauses[(op-opAnsweredForReader)/keyCount], noon)
		}
	}
	return m, found
}

// older is a record one tick later.
func older(r Record) Record {
	r.RegeneratedAt, r.ComparedAt = r.RegeneratedAt.Add(-tick), r.ComparedAt.Add(-tick)
	r.Displaced = slices.Clone(r.Displaced)
	for i := range r.Displaced {
		r.Displaced[i].RegeneratedAt = r.Displaced[i].RegeneratedAt.Add(-tick)
	}
	if r.Intent.Pending() {
		r.Intent.StartedAt, r.Intent.BegunAt = r.Intent.StartedAt.Add(-tick), r.Intent.BegunAt.Add(-tick)
	}
	if r.Watch.On() {
		r.Watch = watch{Until: r.Watch.Until.Add(-tick), Unproven: r.Watch.Unproven}
	}
	return r
}

// aged returns a time before noon as so many ticks, and limit if it is longer ago.
func aged(t time.Time, limit int) int {
	return int(min(time.Duration(limit)*tick, max(0, noon.Sub(t))) / tick)
}

// toByte makes a number of ticks small: there are few.
func toByte(n int) uint8 { return uint8(n) } //nolint:gosec // see above

func ago(ticks int) time.Time { return noon.Add(-time.Duration(ticks) * tick) }

// tidied makes memories equal that differ in nothing that a rule depends on: versions
// count only as known when the POST left or not, and as made for the reader or not, and
// times only as long as a decision can depend on them.
func tidied(m memory) memory {
	m.Salt, m.Workspace = exploreSalt, home
	m.Superseded = slices.Clone(m.Superseded)
	slices.SortFunc(m.Superseded, func(a, b []byte) int { return cmp.Compare(keyOf(a), keyOf(b)) })
	m.Superseded = slices.CompactFunc(m.Superseded, func(a, b []byte) bool { return keyOf(a) == keyOf(b) })
	m.tidyVersions()
	if m.Intent.Pending() {
		kept := intent{Doubt: m.Intent.Doubt, UnderWay: m.Intent.UnderWay, Newest: m.Intent.Newest, Wanted: m.Intent.Wanted}
		kept.StartedAt, kept.BegunAt = ago(aged(m.Intent.StartedAt, doubtTicks)), ago(aged(m.Intent.BegunAt, doubtTicks))
		if !kept.UnderWay {
			kept.BegunAt, kept.Newest = time.Time{}, 0
		}
		m.Intent = kept
	}
	if !m.WantedSince.IsZero() {
		m.WantedSince = noon
	}
	if m.Watch.On() && m.Watch.Until.Before(noon) {
		m.Watch = watch{Until: noon, Unproven: m.Watch.Unproven}
	}
	return m
}

// class orders versions by what a rule can ask of their number.
func (m *memory) class(d displaced) (c int) {
	if m.Intent.UnderWay && d.Version > m.Intent.Newest {
		c++
	}
	if m.fresh > 0 && d.Version >= m.fresh {
		c++
	}
	return c
}

// tidyVersions numbers the versions anew, in an order that depends on nothing else than
// what is said of tidied, and tidies their times.
func (m *memory) tidyVersions() {
	all := m.versions()
	own, known, older := m.Version, 0, 0
	slices.SortFunc(all, func(a, b displaced) int {
		return cmp.Or(cmp.Compare(m.class(a), m.class(b)), cmp.Compare(keyOf(a.MAC), keyOf(b.MAC)))
	})
	m.Displaced, m.Version = nil, 0
	compared := min(aged(m.ComparedAt, driftTicks), aged(m.RegeneratedAt, driftTicks))
	for i, d := range all {
		isOwn := m.Key != "" && d.Version == own
		if m.Intent.UnderWay && d.Version <= m.Intent.Newest {
			known++
		}
		if d.Version < m.fresh {
			older++
		}
		d.tidy()
		if d.Version = i + 1; !isOwn {
			m.Displaced = append(m.Displaced, d)
			continue
		}
		m.Version, m.RegeneratedAt, m.Cause = d.Version, d.RegeneratedAt, d.Cause
	}
	slices.SortFunc(m.Displaced, func(a, b displaced) int { return cmp.Compare(keyOf(a.MAC), keyOf(b.MAC)) })
	m.Newest = len(all)
	if m.fresh > 0 {
		m.fresh = older + 1
	}
	if m.Intent.UnderWay {
		m.Intent.Newest = known
	}
	m.tidyComparison(compared)
}

// tidyComparison keeps the age of the last comparison only while it matters.
func (m *memory) tidyComparison(age int) {
	m.ComparedAt = ago(age)
	if m.Key == "" || m.Watch.On() { // which a comparison ends
		m.ComparedAt = ago(driftTicks)
	}
	if m.Key == "" {
		m.RegeneratedAt, m.Cause, m.Disclosed = ago(driftTicks), "", false
	}
}

// tidy forgets the cause of a version and when it was made, unless it may still be given
// to a reader who wants a new key.
func (d *displaced) tidy() {
	age := aged(d.RegeneratedAt, int(undeliveredFor/tick))
	if d.Disclosed || d.Cause != CauseRead || age >= int(undeliveredFor/tick) {
		age = driftTicks
	}
	d.RegeneratedAt = ago(age)
	switch {
	case d.Cause == CauseExternal || d.Cause == CauseRecovered:
		d.Cause = CauseExternal
	case age == driftTicks:
		d.Cause = CauseRetired
	}
}

func (l *library) intern(m memory) uint32 {
	m = tidied(m)
	f := m.facts()
	id := f.bytes(m)
	n, known := l.ids[id]
	if !known {
		n = uint32(len(l.all)) //nolint:gosec // there are some thousands
		l.ids[id] = n
		l.all, l.facts, l.moves = append(l.all, m), append(l.facts, f), append(l.moves, [opCount]moved{})
	}
	return n
}

func (m memory) facts() facts {
	f := facts{
		own: none, doubt: m.Intent.Doubt, underWay: m.Intent.UnderWay, watching: m.Watch.On(), wanted: !m.WantedSince.IsZero(),
		compared: toByte(aged(m.ComparedAt, driftTicks)), made: m.fresh > 0,
	}
	if m.Watch.On() {
		f.watch, f.unproven = toByte(int(m.Watch.Until.Sub(noon)/tick)), m.Watch.Unproven
	}
	if m.Intent.Pending() {
		f.doubtAge = toByte(aged(m.Intent.StartedAt, doubtTicks))
	}
	for _, d := range m.versions() {
		k := keyOf(d.MAC)
		if m.Key != "" && d.Version == m.Version {
			f.own = k
		} else {
			f.displaced |= one(k)
		}
		if d.Disclosed {
			f.disclosed |= one(k)
		}
		f.traits[k] = m.traits(d)
	}
	for _, mac := range m.Superseded {
		f.superseded |= one(keyOf(mac))
		f.traits[keyOf(mac)] |= 1
	}
	return f
}

// traitLater is the trait of a version that was not known when the POST left.
const (
	laterBit   = 4
	traitLater = 1 << laterBit
)

// traits are all that is known of a version beside its key.
func (m memory) traits(d displaced) uint16 {
	bit := func(on bool, n int) uint16 {
		if on {
			return 1 << n
		}
		return 0
	}
	return bit(m.Key != "" && d.Version == m.Version, 1) | 1<<2 | bit(d.Disclosed, 3) |
		bit(m.Intent.UnderWay && d.Version > m.Intent.Newest, laterBit) | bit(m.fresh > 0 && d.Version >= m.fresh, 5) |
		bit(d.Cause == CauseRead, 6) | bit(d.Cause == CauseExternal, 7) | uint16(toByte(aged(d.RegeneratedAt, driftTicks)))<<8
}

// bytes are what the memory is, keys included.
func (f facts) bytes(m memory) string {
	b := []byte{f.own, f.watch, f.doubtAge, f.compared, 0}
	for i, on := range []bool{f.doubt, f.underWay, f.watching, f.wanted, f.unproven, f.made, f.underWay && m.Intent.Wanted} {
		if on {
			b[4] |= 1 << i
		}
	}
	if m.Intent.UnderWay {
		b = append(b, toByte(aged(m.Intent.BegunAt, doubtTicks)))
	}
	for _, n := range f.traits {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return string(b)
}

// rename gives the keys other numbers. One that is named none is forgotten, unless it is
// a displaced version.
func (l *library) rename(id uint32, to [keyCount]uint8) uint32 {
	at := uint64(id)
	for _, k := range to {
		at = at<<3 | uint64(k)
	}
	n, known := l.renamed[at]
	if !known {
		n = l.intern(renamed(l.all[id], to))
		l.renamed[at] = n
	}
	return n
}

func renamed(m memory, to [keyCount]uint8) memory {
	name := func(mac []byte) uint8 {
		if k := keyOf(mac); k < keyCount {
			return to[k]
		}
		return none
	}
	if m.Key != "" {
		m.Key = names[name(m.mac(m.Key))]
	}
	var dead [][]byte
	for _, mac := range m.Superseded {
		if k := name(mac); k != none {
			dead = append(dead, exploreMACs[k])
		}
	}
	var others []displaced
	for _, d := range m.Displaced {
		k := name(d.MAC)
		if k == none {
			k = gone(m.Intent.UnderWay && d.Version > m.Intent.Newest)
		}
		d.MAC = exploreMACs[k]
		same := slices.IndexFunc(others, func(o displaced) bool { return keyOf(o.MAC) == k })
		if same < 0 {
			others = append(others, d)
			continue
		}
		others[same].Disclosed = others[same].Disclosed || d.Disclosed
	}
	for i, d := range others {
		if keyOf(d.MAC) >= keyCount {
			others[i].Cause, others[i].RegeneratedAt = CauseRetired, time.Time{}
		}
	}
	m.Superseded, m.Displaced = dead, others
	return m
}

func gone(later bool) uint8 {
	if later {
		return goneLater
	}
	return goneKnown
}

// dueNow is what is due.
func (l *library) dueNow(at dueOf) dueWork {
	work, known := l.dues[at]
	if known {
		return work
	}
	m := l.all[at.id]
	leased := map[int]bool{}
	for _, d := range m.versions() {
		leased[d.Version] = at.leased.has(keyOf(d.MAC))
	}
	for _, w := range l.due(m.Record, situation{
		policy: explorePolicy, asked: askedAt(at.asked, at.failed), turning: at.turning, now: noon, leased: leased,
	}) {
		switch w {
		case WorkWanted:
			work.wanted = true
		case WorkSettle:
			work.settle = true
		case WorkRetire:
			work.retire = true
		case WorkCompare:
			work.compare = true
		}
	}
	l.dues[at] = work
	return work
}

// askedOld is the age of a comparison, in ticks, from which on none counts.
const askedOld = int(retryCompare / tick)

func askedAt(age uint8, failed bool) asked { return asked{at: ago(int(age)), failed: failed} }
