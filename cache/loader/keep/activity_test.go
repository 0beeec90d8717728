package keep

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
)

// A clock is read by a Keeper that runs, and set by the test meanwhile.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// hanging returns a rig whose engine stops before it answers the first request to a path, and
// the clock. What stops is in the channel, which gets what lets it go on.
func hanging(t *testing.T, o Options, path string) (r *rig, c *clock, stopped chan chan struct{}) {
	r = newRig(t, o, enginetest.Classic)
	c = &clock{at: r.now.Truncate(second)}
	r.Keeper.now = c.now
	stopped = make(chan chan struct{})
	var once sync.Once
	r.engine.SetQuirks(enginetest.Quirks{Before: func(q enginetest.Request) {
		if q.Path == path {
			once.Do(func() {
				goOn := make(chan struct{})
				stopped <- goOn
				<-goOn
			})
		}
	}})
	return r, c, stopped
}

// A load that hangs is shown while it does, and makes the Keeper unhealthy after a while.
func TestLoadHangs(t *testing.T) {
	// The client may still send when the engine has the request.
	sent := make(chan struct{})
	allSent := sync.OnceFunc(func() { close(sent) })
	r, c, stopped := hanging(t, Options{StalledAfter: time.Minute, Load: loader.Options{Unpacking: func(tarball.Progress) { allSent() }}}, "/images/load")
	r.stock("a_main.tar", "r.test/i:a", "base")
	assert.Empty(t, r.Status().Activity)
	began := c.now()
	done := make(chan struct{})
	go func() { defer close(done); r.step(t.Context()) }()
	goOn := <-stopped
	<-sent

	since := began.UTC().Format(time.RFC3339)
	health := r.get("/healthz")
	assert.Equal(t, http.StatusOK, health.Code)
	assert.Equal(t, "ok\nloading \"a_main.tar\" since "+since+"\n", health.Body.String())
	metrics := r.get("/metrics").Body.String()
	for _, name := range []string{"activity_start_timestamp_seconds", "activity_progress_timestamp_seconds"} {
		assert.Contains(t, metrics, fmt.Sprintf("\ndockercache_keep_loaded_%s{activity=\"load\",image=\"a_main.tar\"} %d\n", name, began.Unix()))
	}
	assert.Contains(t, metrics, "\ndockercache_keep_loaded_stalled 0\n")

	c.pass(time.Minute - 1)
	assert.Equal(t, http.StatusOK, r.get("/healthz").Code)
	c.pass(1)
	health = r.get("/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, health.Code)
	assert.Equal(t, "loading \"a_main.tar\" since "+since+", without progress since "+since+"\n", health.Body.String())
	assert.Contains(t, r.get("/metrics").Body.String(), "\ndockercache_keep_loaded_stalled 1\n")

	close(goOn)
	<-done
	assert.Equal(t, "ok\n", r.get("/healthz").Body.String())
	metrics = r.get("/metrics").Body.String()
	assert.Contains(t, metrics, "\ndockercache_keep_loaded_stalled 0\n")
	assert.NotContains(t, metrics, `activity="`)
}

// An engine that does not answer is no other case.
func TestEngineHangs(t *testing.T) {
	r, c, stopped := hanging(t, Options{}, "/info")
	r.stock("a_main.tar", "r.test/i:a", "base")
	done := make(chan struct{})
	go func() { defer close(done); r.step(t.Context()) }()
	goOn := <-stopped
	c.pass(stalledAfter)
	assert.Regexp(t, "^asking the engine since .*, without progress since .*\n$", r.get("/healthz").Body.String())
	close(goOn)
	<-done
}

// blocked is a store whose look does not end, as that at a file server that is gone.
type blocked struct {
	Store
	looks, goOn chan struct{}
}

func (b blocked) Look(context.Context) (map[string]Version, error) {
	b.looks <- struct{}{}
	<-b.goOn
	return nil, errors.New("the server is gone")
}

func TestLookHangs(t *testing.T) {
	for _, after := range []time.Duration{time.Second, -1} {
		dir, err := cache.Open(t.TempDir(), nil)
		require.NoError(t, err)
		b := blocked{Directory(dir), make(chan struct{}), make(chan struct{})}
		k, err := New(b, nil, &Options{StalledAfter: after})
		require.NoError(t, err)
		c := &clock{at: time.Now()}
		k.now = c.now
		done := make(chan struct{})
		go func() { defer close(done); k.step(t.Context()) }()
		<-b.looks
		k.looked(nil, nil)
		assert.Empty(t, k.Status().Problems())
		c.pass(24 * time.Hour)
		s := k.Status()
		assert.Equal(t, after > 0, s.Activity.Stalled)
		assert.Equal(t, after > 0, len(s.Problems()) == 1)
		assert.Equal(t, Looking, s.Activity.Step)
		close(b.goOn)
		<-done
	}
}

// Progress is what has changed: an engine that reports the same again and again does not come
// further.
func TestProgress(t *testing.T) {
	c := &clock{at: time.Now()}
	var called []tarball.Progress
	k, err := New(nil, nil, &Options{Load: loader.Options{Progress: func(p tarball.Progress) { called = append(called, p) }}})
	require.NoError(t, err)
	k.now = c.now
	k.begin(Loading, "a_main.tar")
	sent := tarball.Progress{Done: 1, Total: 2}
	for _, step := range []struct {
		call     func(tarball.Progress)
		progress tarball.Progress
		further  bool
	}{
		{k.o.Load.Progress, sent, true},
		{k.o.Load.Progress, sent, false},
		{k.o.Load.Unpacking, tarball.Progress{Phase: tarball.Unpacking}, true},
		{k.o.Load.Unpacking, tarball.Progress{Phase: tarball.Unpacking}, false},
		{k.o.Load.Unpacking, tarball.Progress{Phase: tarball.Unpacking, Done: 1, Total: 2}, true},
	} {
		c.pass(time.Minute)
		step.call(step.progress)
		assert.Equal(t, step.further, k.Status().Activity.Progress.Equal(c.now()))
	}
	assert.Equal(t, []tarball.Progress{sent, sent}, called)
	assert.Equal(t, 5*time.Minute, c.now().Sub(k.Status().Activity.Began))
}
