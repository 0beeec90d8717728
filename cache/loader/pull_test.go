package loader

import (
	"context"
	"errors"
	"path"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
)

// eachPuller runs a test on the engines that would rather pull.
func eachPuller(t *testing.T, test func(t *testing.T, engine *enginetest.Engine, o enginetest.Options)) {
	for name, o := range kinds {
		if o.Kind != enginetest.Classic {
			t.Run(name, func(t *testing.T) { test(t, enginetest.New(t, o), o) })
		}
	}
}

// pulling are options with which pulls are allowed.
func pulling(t *testing.T) (*Options, *logged) {
	t.Helper()
	opts, log := options(t)
	opts.NoPull = false
	return opts, log
}

// blobBytes is how much a registry sends of an image without its first n layers.
func blobBytes(file *tarball.Tarball, n int) int64 {
	sent := int64(len(file.Image.Manifest()) + len(file.Image.Config()))
	for _, l := range file.Image.Layers()[n:] {
		sent += l.Size
	}
	return sent
}

func TestPull(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
		file := stocked(t, testRef, small("a", "b", "c")...)
		opts, log := pulling(t)
		var mu sync.Mutex
		var last tarball.Progress
		opts.Progress = func(p tarball.Progress) {
			mu.Lock()
			defer mu.Unlock()
			assert.GreaterOrEqual(t, p.Done, last.Done)
			last = p
		}
		result, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, &Result{Outcome: Loaded, Streamed: blobBytes(file, 0), Total: file.Layout.Size()}, result)
		assert.Equal(t, tarball.Progress{Done: result.Streamed, Total: result.Total}, last)
		assert.Equal(t, map[string]string{testRef: identity(file.Image, o)}, engine.Names(), "the name that it was pulled by is gone")
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
		assert.Empty(t, engine.Loads())
		assert.Equal(t, 1, engine.Pulls())
		assert.Zero(t, engine.Containers())
		assert.Empty(t, log.String())

		engine.Forget()
		result, err = Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, Present, result.Outcome)
		assert.Zero(t, engine.Pulls())
	})
}

// An engine asks only for what it lacks.
func TestPullDelta(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
		docker := connect(t, engine)
		opts, log := pulling(t)
		other := stocked(t, "docker.io/team/other:tag", small("a", "b")...)
		_, err := Load(t.Context(), docker, other, opts)
		require.NoError(t, err)
		file := stocked(t, testRef, small("a", "b", "c")...)
		result, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		assert.Equal(t, Delta, result.Outcome)
		assert.Equal(t, blobBytes(file, 2), result.Streamed)
		assert.Equal(t, map[string]string{testRef: identity(file.Image, o), "docker.io/team/other:tag": identity(other.Image, o)}, engine.Names())
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
		assert.Empty(t, engine.Loads())
		assert.Empty(t, log.String())
	})
}

// Engines that do not pull: Docker's classic store, an engine that may be on another
// machine, and one that may not.
func TestPullsNot(t *testing.T) {
	file := stocked(t, testRef, small("a")...)
	load := func(t *testing.T, o enginetest.Options, connect func(*enginetest.Engine) *docker, change func(*Options)) {
		t.Helper()
		engine := enginetest.New(t, o)
		opts, _ := pulling(t)
		change(opts)
		result, err := Load(t.Context(), connect(engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, Loaded, result.Outcome)
		assert.Zero(t, engine.Pulls())
		assert.Len(t, engine.Loads(), 1)
	}
	local := func(engine *enginetest.Engine) *docker { return connect(t, engine) }
	remote := func(engine *enginetest.Engine) *docker {
		address, err := engine.ListenTCP()
		require.NoError(t, err)
		docker, err := openDocker(t.Context(), Host{Address: address})
		require.NoError(t, err)
		return docker
	}
	load(t, kinds["classic"], local, func(*Options) {})
	load(t, kinds["containerd"], remote, func(*Options) {})
	load(t, kinds["podman"], local, func(o *Options) { o.NoPull = true })
	load(t, kinds["podman"], local, func(o *Options) { o.Whole = true })
}

// When an engine does not pull it is sent an archive.
func TestPullFallsBack(t *testing.T) {
	for name, c := range map[string]struct {
		quirks enginetest.Quirks
		want   string
	}{
		"never asks": {enginetest.Quirks{NeverAsks: true}, errNotAsked.Error()},
		"fails":      {enginetest.Quirks{PullFails: "toomanyrequests: not you"}, "toomanyrequests: not you"},
	} {
		t.Run(name, func(t *testing.T) {
			eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
				engine.SetQuirks(c.quirks)
				file := stocked(t, testRef, small("a", "b")...)
				opts, log := pulling(t)
				l := newLoad(connect(t, engine), file, opts)
				if c.quirks.NeverAsks {
					l.connect = 0
				}
				require.NoError(t, l.run(t.Context()))
				assert.Equal(t, Loaded, l.result.Outcome)
				assert.Len(t, engine.Loads(), 1)
				assert.Equal(t, map[string]string{testRef: identity(file.Image, o)}, engine.Names())
				requireFiles(t, engine, testRef, small("a", "b")...)
				assert.Contains(t, log.String(), c.want)
			})
		})
	}
}

// What was pulled is verified before it gets the reference.
func TestPullIsVerifiedFirst(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Podman})
	opts, _ := pulling(t)
	_, err := Load(t.Context(), connect(t, engine), stocked(t, testRef, small("a")...), opts)
	require.NoError(t, err)
	var order []string
	for _, r := range engine.Requests() {
		if r.Path == "/containers/create" || strings.HasSuffix(r.Path, "/tag") {
			order = append(order, path.Base(r.Path))
		}
	}
	assert.Equal(t, []string{"create", "tag"}, order)
}

// elsewhere is an engine whose loopback is that of another machine.
type elsewhere struct{ *docker }

func (elsewhere) Pull(context.Context, string) error { return nil }

func TestPullFromAnotherMachine(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
	opts, log := pulling(t)
	result, err := Load(t.Context(), elsewhere{connect(t, engine)}, stocked(t, testRef, small("a")...), opts)
	require.NoError(t, err)
	assert.Equal(t, Loaded, result.Outcome)
	assert.Len(t, engine.Loads(), 1)
	assert.Contains(t, log.String(), errNotAsked.Error())
}

// An engine that keeps another image than it was to pull has not loaded it.
func TestPullOfAnotherImage(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
		docker := connect(t, engine)
		opts, _ := pulling(t)
		before := stocked(t, testRef, small("x")...)
		_, err := Load(t.Context(), docker, before, opts)
		require.NoError(t, err)
		engine.SetQuirks(enginetest.Quirks{WrongImage: true})
		_, err = Load(t.Context(), docker, stocked(t, testRef, small("a")...), opts)
		require.ErrorIs(t, err, ErrNotLoaded)
		assert.Equal(t, map[string]string{testRef: identity(before.Image, o)}, engine.Names())
	})
}

// Of a damaged tarball nothing gets a name, and the error says that it is damaged.
func TestPullOfACorruptTarball(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
		docker := connect(t, engine)
		opts, _ := pulling(t)
		before := stocked(t, testRef, small("x")...)
		_, err := Load(t.Context(), docker, before, opts)
		require.NoError(t, err)
		file := newShelf(t).stock("a", testRef, small("a", "b")...)
		corrupt(t, file, 1)
		_, err = Load(t.Context(), docker, file, opts)
		require.ErrorIs(t, err, tarball.ErrDigest)
		assert.Equal(t, map[string]string{testRef: identity(before.Image, o)}, engine.Names())
	})
}

// A tarball that is replaced or removed while the engine pulls: the engine gets the
// one that was opened.
func TestPullOfAReplacedTarball(t *testing.T) {
	for name, replace := range replacements {
		t.Run(name, func(t *testing.T) {
			eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
				s := newShelf(t)
				file := s.stock("a", testRef, small("a", "b")...)
				var once sync.Once
				engine.SetQuirks(enginetest.Quirks{WhilePulling: func() { once.Do(func() { replace(s, file) }) }})
				opts, log := pulling(t)
				result, err := Load(t.Context(), connect(t, engine), file, opts)
				require.NoError(t, err)
				assert.Equal(t, Loaded, result.Outcome)
				assert.Equal(t, map[string]string{testRef: identity(file.Image, o)}, engine.Names())
				requireFiles(t, engine, testRef, small("a", "b")...)
				assert.Empty(t, log.String())
				assert.Empty(t, engine.Loads())
			})
		})
	}
}

// Cancelled in the middle of a pull: what was there before is there.
func TestPullCancelled(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, o enginetest.Options) {
		docker := connect(t, engine)
		opts, _ := pulling(t)
		before := stocked(t, testRef, small("x")...)
		_, err := Load(t.Context(), docker, before, opts)
		require.NoError(t, err)
		reason := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		engine.SetQuirks(enginetest.Quirks{WhilePulling: func() { cancel(reason) }})
		_, err = Load(ctx, docker, stocked(t, testRef, small("a", "b")...), opts)
		require.ErrorIs(t, err, reason)
		assert.Equal(t, map[string]string{testRef: identity(before.Image, o)}, engine.Names())
		assert.Empty(t, engine.Loads())
	})
}

// The name that an image was pulled by stays when the engine does not remove it; that
// is no reason to fail, and is logged.
func TestPullLeavesAName(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
	opts, log := pulling(t)
	file := stocked(t, testRef, small("a")...)
	_, err := Load(t.Context(), keepsNames{connect(t, engine)}, file, opts)
	require.NoError(t, err)
	assert.Len(t, engine.Names(), 2)
	assert.Contains(t, log.String(), "could not be removed")
}

// keepsNames is an engine that removes no name.
type keepsNames struct{ *docker }

func (k keepsNames) Name(ctx context.Context, reference string, id v1.Hash) error {
	if id == (v1.Hash{}) {
		return errors.New("not today")
	}
	return k.docker.Name(ctx, reference, id)
}
