package keep

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/metrics/metricstest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// A rig is a Keeper whose time passes only when the test says so.
type rig struct {
	t      *testing.T
	engine *enginetest.Engine
	dir    *cache.Dir
	o      Options
	now    time.Time
	events []Event
	*Keeper
}

func newRig(t *testing.T, o Options, kind enginetest.Kind) *rig {
	t.Helper()
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	r := &rig{t: t, engine: enginetest.New(t, enginetest.Options{Kind: kind}), dir: dir, o: o, now: time.Now().Add(time.Hour)}
	r.o.Load.LockDir = filepath.Join(t.TempDir(), "locks")
	r.o.Loaded = func(e Event) { r.events = append(r.events, e) }
	r.restart()
	return r
}

// restart makes another Keeper, as after the end of the process.
func (r *rig) restart() {
	r.t.Helper()
	var err error
	r.Keeper, err = New(Directory(r.dir), func(ctx context.Context) (loader.Engine, error) {
		return loader.Open(ctx, loader.Host{Address: r.engine.Address()})
	}, &r.o)
	require.NoError(r.t, err)
	r.Keeper.now = func() time.Time { return r.now }
}

func (r *rig) stock(name, ref string, layers ...string) {
	r.t.Helper()
	require.NoError(r.t, tarballtest.Stock(r.dir, name, ref, 3000, layers...))
}

// after lets time pass, and the Keeper do what it does then. It returns the outcomes.
func (r *rig) after(d time.Duration) (outcomes []string) {
	r.t.Helper()
	r.now = r.now.Add(d)
	r.events = nil
	r.step(r.t.Context())
	for _, e := range r.events {
		outcome := string(e.Result.Outcome)
		if e.Err != nil {
			outcome = "failed"
		}
		outcomes = append(outcomes, strings.TrimSuffix(e.Name, ".tar")+" "+outcome)
	}
	return outcomes
}

func (r *rig) requireNames(want ...string) {
	r.t.Helper()
	var have []string
	for name := range r.engine.Names() {
		have = append(have, strings.TrimPrefix(name, "r.test/i:"))
	}
	require.ElementsMatch(r.t, want, have)
}

const second = time.Second

func TestKeeps(t *testing.T) {
	for name, kind := range map[string]enginetest.Kind{"classic": enginetest.Classic, "containerd": enginetest.Containerd, "podman": enginetest.Podman} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{}, kind)
			assert.Empty(t, r.after(second))
			r.stock("a_main.tar", "r.test/i:a-1", "base", "one")
			assert.Equal(t, []string{"a_main loaded"}, r.after(second))
			r.engine.Forget()
			for range 20 {
				assert.Empty(t, r.after(second))
			}
			assert.Empty(t, r.engine.Requests(), "where nothing has changed it is not asked")
			r.stock("a_main.tar", "r.test/i:a-2", "base", "two")
			assert.Equal(t, []string{"a_main loaded-delta"}, r.after(second))
			r.requireNames("a-1", "a-2")

			// What the engine has lost comes again.
			d, err := loader.Open(t.Context(), loader.Host{Address: r.engine.Address()})
			require.NoError(t, err)
			require.NoError(t, d.(loader.Remover).Remove(t.Context(), "r.test/i:a-2"))
			assert.Empty(t, r.after(second))
			assert.Equal(t, []string{"a_main loaded-delta"}, r.after(time.Minute))

			// After a start nothing is sent.
			r.restart()
			assert.Equal(t, []string{"a_main present"}, r.after(second))
			require.NoError(t, r.dir.Remove(t.Context(), "a_main.tar"))
			assert.Empty(t, r.after(time.Minute))
			assert.Empty(t, r.Status().Images)
			r.requireNames("a-1", "a-2")
		})
	}
}

// The newest comes first, and what does not match does not come.
func TestOrderAndMatch(t *testing.T) {
	r := newRig(t, Options{Match: func(name string) bool { return name != "c_main.tar" }}, enginetest.Classic)
	for i, name := range []string{"a", "b", "c", "d"} {
		r.stock(name+"_main.tar", "r.test/i:"+name, "base", name)
		at := r.now.Add(time.Duration(-i) * time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(r.dir.Path(), name+"_main.tar"), at, at))
	}
	require.NoError(t, os.WriteFile(filepath.Join(r.dir.Path(), ".e_main.tar.partial"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(r.dir.Path(), "f.tar"), 0o700))
	assert.Equal(t, []string{"a_main loaded", "b_main loaded-delta", "d_main loaded-delta"}, r.after(0))
	s := r.Status()
	require.Len(t, s.Images, 3)
	assert.Equal(t, time.Hour, s.Images[1].Delay)
}

func TestVersions(t *testing.T) {
	r := newRig(t, Options{Versions: 2, State: filepath.Join(t.TempDir(), "state.json")}, enginetest.Classic)
	for _, n := range []string{"1", "2", "3"} {
		r.stock("a_main.tar", "r.test/i:a-"+n, "base", n)
		r.after(second)
	}
	r.requireNames("a-2", "a-3")

	// What a container uses stays as long, also over a start.
	release, err := r.engine.Use("r.test/i:a-2")
	require.NoError(t, err)
	r.stock("a_main.tar", "r.test/i:a-4", "base", "4")
	r.after(second)
	r.requireNames("a-2", "a-3", "a-4")
	r.restart()
	r.after(time.Minute)
	r.requireNames("a-2", "a-3", "a-4")
	release()
	r.after(time.Minute)
	r.requireNames("a-3", "a-4")
	assert.Equal(t, 1, r.Status().Removed)
	assert.Zero(t, r.Status().RemoveFailures)

	// A reference that another tarball has stays, and one that names another image now.
	r.stock("b_main.tar", "r.test/i:a-3", "base", "3")
	r.after(second)
	for _, n := range []string{"5", "6"} {
		r.stock("a_main.tar", "r.test/i:a-"+n, "base", n)
		r.after(second)
	}
	r.requireNames("a-3", "a-5", "a-6")
	d, err := loader.Open(t.Context(), loader.Host{Address: r.engine.Address()})
	require.NoError(t, err)
	id, _, err := d.Find(t.Context(), "r.test/i:a-3")
	require.NoError(t, err)
	require.NoError(t, d.Name(t.Context(), "r.test/i:a-5", id))
	r.stock("a_main.tar", "r.test/i:a-7", "base", "7")
	r.after(second)
	r.stock("a_main.tar", "r.test/i:a-8", "base", "8")
	r.after(second)
	assert.Contains(t, r.engine.Names(), "r.test/i:a-5")

	// The state is that of one engine: it says nothing of another.
	r.engine = enginetest.New(t, enginetest.Options{})
	r.restart()
	r.after(second)
	r.requireNames("a-8", "a-3")
	assert.Len(t, r.state.Tarballs["a_main.tar"], 1)
}

// A reference that moves to a newer image leaves one without a name.
func TestMovedReference(t *testing.T) {
	for name, kind := range map[string]enginetest.Kind{"classic": enginetest.Classic, "podman": enginetest.Podman} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{Versions: 5}, kind)
			r.stock("a_main.tar", "r.test/i:latest", "base", "1")
			r.after(second)
			release, err := r.engine.Use("r.test/i:latest")
			require.NoError(t, err)
			r.stock("a_main.tar", "r.test/i:latest", "base", "2")
			r.after(second)
			assert.Len(t, r.engine.IDs(), 2)
			release()
			r.after(time.Minute)
			assert.Len(t, r.engine.IDs(), 1)
			r.requireNames("latest")
			assert.Len(t, r.state.Tarballs["a_main.tar"], 1)
		})
	}
}

// A damaged tarball does not keep the others waiting, and is tried later and later.
func TestFailuresBackOff(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	r.stock("b_main.tar", "r.test/i:b", "base")
	path := filepath.Join(r.dir.Path(), "a_main.tar")
	require.NoError(t, os.WriteFile(path, []byte("no tarball"), 0o600))
	assert.ElementsMatch(t, []string{"a_main failed", "b_main loaded"}, r.after(0))
	assert.Equal(t, http.StatusServiceUnavailable, r.get("/healthz").Code)
	assert.Contains(t, r.get("/healthz").Body.String(), `"a_main.tar": `)
	assert.Empty(t, r.after(second/4), "the least is half a second")
	assert.Len(t, r.after(second), 1)
	assert.Empty(t, r.after(second/2), "the second takes a second at least")
	for range 20 {
		r.after(lastRetry)
	}
	assert.Empty(t, r.after(lastRetry/3))
	assert.Greater(t, r.Status().Images[0].Failures, 10)
	r.stock("new_main.tar", "r.test/i:new", "base")
	require.NoError(t, os.Rename(filepath.Join(r.dir.Path(), "new_main.tar"), path))
	assert.Equal(t, []string{"a_main loaded-delta"}, r.after(second), "another file is tried at once")
	assert.Equal(t, http.StatusOK, r.get("/healthz").Code)
}

func (r *rig) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// An engine that is gone is opened again.
func TestEngineGone(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	r.stock("a_main.tar", "r.test/i:a", "base")
	r.engine.Close()
	assert.Empty(t, r.after(0))
	assert.Contains(t, r.get("/healthz").Body.String(), "the engine cannot be used: ")
	assert.Contains(t, r.get("/metrics").Body.String(), "\ndockercache_keep_loaded_engine_up 0\n")
	r.engine = enginetest.New(t, enginetest.Options{})
	assert.Empty(t, r.after(second/4))
	assert.Equal(t, []string{"a_main loaded"}, r.after(second))
	r.engine.Close()
	r.engine = enginetest.New(t, enginetest.Options{})
	assert.Empty(t, r.after(time.Minute))
	assert.Equal(t, []string{"a_main loaded"}, r.after(time.Minute), "the new one has nothing")
	assert.Equal(t, 2, r.Status().EngineFailures)
	require.NoError(t, r.Once(t.Context()))
}

func TestStoreGone(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	assert.Contains(t, r.get("/healthz").Body.String(), "the tarballs were not listed yet")
	require.NoError(t, os.Rename(r.dir.Path(), r.dir.Path()+".away"))
	r.after(0)
	assert.Contains(t, r.get("/healthz").Body.String(), "the tarballs cannot be listed: ")
	r.after(second / 4)
	assert.Equal(t, 1, r.Status().Looks)
	require.NoError(t, os.Rename(r.dir.Path()+".away", r.dir.Path()))
	r.stock("a_main.tar", "r.test/i:a", "base")
	assert.Len(t, r.after(second), 1)
	assert.Equal(t, "ok\n", r.get("/healthz").Body.String())
}

func TestBusy(t *testing.T) {
	busy := "a job runs"
	r := newRig(t, Options{Busy: func() string { return busy }}, enginetest.Classic)
	r.stock("a_main.tar", "r.test/i:a", "base")
	assert.Empty(t, r.after(second))
	assert.Equal(t, http.StatusOK, r.get("/healthz").Code)
	assert.Contains(t, r.get("/metrics").Body.String(), "\ndockercache_keep_loaded_busy 1\n")
	require.ErrorIs(t, r.Once(t.Context()), ErrBusy)
	assert.Empty(t, r.engine.Requests())
	busy = ""
	assert.Len(t, r.after(second), 1)
}

// pinning is an engine that notes what was pinned.
type pinning struct {
	loader.Engine
	pinned []string
	err    error
}

func (p *pinning) Pin(_ context.Context, reference string) error {
	p.pinned = append(p.pinned, reference)
	return p.err
}

func TestPin(t *testing.T) {
	for _, failure := range []error{nil, errors.New("no labels")} {
		r := newRig(t, Options{Pin: true}, enginetest.Classic)
		d, err := loader.Open(t.Context(), loader.Host{Address: r.engine.Address()})
		require.NoError(t, err)
		p := &pinning{Engine: d, err: failure}
		r.open = func(context.Context) (loader.Engine, error) { return p, nil }
		r.stock("a_main.tar", "r.test/i:a", "base")
		r.after(0)
		assert.Equal(t, []string{"r.test/i:a"}, p.pinned)
		require.ErrorIs(t, r.Once(t.Context()), failure)
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err := New(nil, nil, &Options{State: path})
	require.ErrorContains(t, err, "read what was loaded before, "+path)
	// One that cannot be written does not keep images from being loaded.
	r := newRig(t, Options{State: filepath.Join(t.TempDir(), "missing", "state.json")}, enginetest.Classic)
	r.stock("a_main.tar", "r.test/i:a", "base")
	assert.Equal(t, []string{"a_main loaded"}, r.after(0))
}

func TestRunEnds(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	ctx, cancel := context.WithCancel(t.Context())
	r.stock("a_main.tar", "r.test/i:a", "base")
	r.Keeper.o.Loaded = func(Event) { cancel() }
	require.ErrorIs(t, r.Run(ctx), context.Canceled)
	require.ErrorIs(t, r.Once(ctx), context.Canceled)
}

func TestServeHTTP(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	r.stock(`a"b_main.tar`, "r.test/i:a", "base")
	r.after(second)
	text := r.get("/metrics").Body.String()
	assert.Contains(t, text, `dockercache_keep_loaded_loads_total{image="a\"b_main.tar",outcome="loaded"} 1`)
	assert.Contains(t, text, `dockercache_keep_loaded_image_ready{image="a\"b_main.tar"} 1`)
	for _, phase := range []timing.Phase{timing.Look, timing.Find, timing.Stream, timing.Engine, timing.Verify} {
		assert.Contains(t, text, `dockercache_keep_loaded_load_phase_seconds_total{image="a\"b_main.tar",phase="`+string(phase)+`"} `)
		assert.Contains(t, r.events[0].Phases, phase)
	}
	assert.Equal(t, "docker", r.events[0].Engine)
	metricstest.Documented(t, "keep-loaded", text)
	families := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(name), " ")
			assert.False(t, families[name], name)
			families[name] = true
			assert.Equal(t, kind == "counter", strings.HasSuffix(name, "_total"), name)
		} else if !strings.HasPrefix(line, "#") {
			assert.Regexp(t, `^dockercache_keep_loaded_[a-z_]+(\{image="([^"\\]|\\.)*"(,(outcome|phase)="[a-z_-]+")?\})? [-+0-9.e]+\n$`, line)
		}
	}
	assert.Equal(t, http.StatusNotFound, r.get("/").Code)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/healthz", nil))
	assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
}

// What is listed is told apart by what it holds.
func TestListed(t *testing.T) {
	r := newRig(t, Options{}, enginetest.Classic)
	r.stock("a_main.tar", "r.test/i:a", "base")
	store := Listed(r.dir)
	first, err := store.Look(t.Context())
	require.NoError(t, err)
	require.Len(t, first, 1)
	r.stock("a_main.tar", "r.test/i:a", "other")
	second, err := store.Look(t.Context())
	require.NoError(t, err)
	assert.NotEqual(t, first["a_main.tar"].ID, second["a_main.tar"].ID)
	require.NoError(t, os.RemoveAll(r.dir.Path()))
	_, err = store.Look(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
}
