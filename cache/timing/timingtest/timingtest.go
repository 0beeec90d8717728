// Package timingtest helps to test what tells an observer of its phases.
package timingtest

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache/timing"
)

// A Log is an observer that notes which phases were begun, without those that go on.
type Log struct {
	mu     sync.Mutex
	phases []timing.Phase
	last   time.Time
	back   bool
}

// Begin implements [timing.Observer].
func (l *Log) Begin(p timing.Phase, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back = l.back || at.Before(l.last)
	l.last = at
	if len(l.phases) == 0 || l.phases[len(l.phases)-1] != p {
		l.phases = append(l.phases, p)
	}
}

// Phases returns them and begins again. The work must have ended its last phase, and time must
// not have gone back.
func (l *Log) Phases(t testing.TB) []timing.Phase {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	phases := l.phases
	assert.False(t, l.back, "the time of a phase is before that of the one before: %v", phases)
	if assert.NotEmpty(t, phases) {
		assert.Empty(t, phases[len(phases)-1], "the last phase has not ended: %v", phases)
		phases = phases[:len(phases)-1]
	}
	l.phases, l.last = nil, time.Time{}
	return phases
}
