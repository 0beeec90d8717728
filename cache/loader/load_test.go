package loader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
)

func TestLoadWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, file := enginetest.New(t, o), stocked(t, testRef, small("a", "b", "a")...)
		var last tarball.Progress
		opts, log := options(t)
		opts.Progress = func(p tarball.Progress) {
			assert.Greater(t, p.Done, last.Done)
			last = p
		}
		result, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		size := file.Layout.Size()
		assert.Equal(t, &Result{Outcome: Loaded, Streamed: size, Total: size}, result)
		assert.Equal(t, tarball.Progress{Done: size, Total: size}, last)
		assert.Equal(t, []int64{size}, engine.Loads())
		assert.Equal(t, map[string]string{testRef: identity(file.Image, o)}, engine.Names())
		requireFiles(t, engine, testRef, small("a", "b")...)
		assert.Zero(t, engine.Containers())
		assert.Empty(t, log.String())
	})
}

// Two requests, and none of those that cost an engine something.
func TestLoadPresent(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, file := enginetest.New(t, o), newShelf(t).stock("image", testRef, small("a", "b")...)
		opts, log := options(t)
		_, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		engine.Forget()
		corrupt(t, file, 0) // nothing is read
		result, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, &Result{Outcome: Present, Total: file.Layout.Size()}, result)
		assert.Empty(t, log.String())
		want := []string{"GET /_ping", "GET /images/" + testRef + "/json"}
		if verifiedByContainer(o) && o.Kind == enginetest.Containerd { // it does not say that the image is whole
			assert.Equal(t, want, asked(engine)[:2])
			assert.Contains(t, asked(engine), "POST /containers/create")
			return
		}
		assert.Equal(t, want, asked(engine))
	})
}

func TestLoadDelta(t *testing.T) {
	// The layers that are there, those of the image, and which of its layers need
	// not be sent to a store of chains, and to one of blobs.
	for name, c := range map[string]struct {
		there, image  []string
		chains, blobs []int
	}{
		"one more on top":   {[]string{"a", "b"}, []string{"a", "b", "c"}, []int{0, 1}, []int{0, 1}},
		"another in front":  {[]string{"a", "b"}, []string{"c", "a", "b"}, nil, []int{1, 2}},
		"other order":       {[]string{"a", "b", "c"}, []string{"a", "c", "b"}, []int{0}, []int{0, 1, 2}},
		"no layer less":     {[]string{"a", "b", "c"}, []string{"a", "b"}, []int{0, 1}, []int{0, 1}},
		"again on top":      {[]string{"a", "b"}, []string{"a", "b", "a"}, []int{1}, []int{0, 1, 2}},
		"nothing in common": {[]string{"a"}, []string{"b"}, nil, nil},
	} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine := enginetest.New(t, o)
			docker := connect(t, engine)
			opts, log := options(t)
			_, err := Load(t.Context(), docker, stocked(t, "docker.io/team/other:tag", small(c.there...)...), opts)
			require.NoError(t, err, name)
			file := stocked(t, testRef, small(c.image...)...)
			omitted := c.chains
			if o.Kind == enginetest.Containerd {
				omitted = c.blobs
			}
			want := Delta
			if omitted == nil {
				want = Loaded
			}
			result, err := Load(t.Context(), docker, file, opts)
			require.NoError(t, err, name)
			size := archiveSize(t, file, omitted...)
			assert.Equal(t, &Result{Outcome: want, Streamed: size, Total: file.Layout.Size()}, result, name)
			assert.Equal(t, size, engine.Loads()[1], name)
			assert.Equal(t, identity(file.Image, o), engine.Names()[testRef], name)
			requireFiles(t, engine, testRef, small(c.image...)...)
			requireFiles(t, engine, "docker.io/team/other:tag", small(c.there...)...)
			assert.Empty(t, log.String(), name)
		})
	}
}

// prepared is an engine that has the layers a and b, and a tarball of a, b, c.
func prepared(t *testing.T, o enginetest.Options) (*enginetest.Engine, *docker, *tarball.Tarball) {
	t.Helper()
	engine := enginetest.New(t, o)
	docker := connect(t, engine)
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, stocked(t, "docker.io/team/other:tag", small("a", "b")...), opts)
	require.NoError(t, err)
	engine.Forget()
	return engine, docker, stocked(t, testRef, small("a", "b", "c")...)
}

func TestLoadSendsTheWhole(t *testing.T) {
	for name, q := range map[string]enginetest.Quirks{
		"an old version": {OldVersion: true},
		"an image that cannot be inspected, and the option": {BrokenInspect: true},
	} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, docker, file := prepared(t, o)
			docker.info = nil // it is asked again
			engine.SetQuirks(q)
			opts, _ := options(t)
			opts.Whole = q.BrokenInspect
			result, err := Load(t.Context(), docker, file, opts)
			require.NoError(t, err, name)
			size := file.Layout.Size()
			assert.Equal(t, &Result{Outcome: Loaded, Streamed: size, Total: size}, result, name)
			assert.Equal(t, []int64{size}, engine.Loads(), name)
			requireFiles(t, engine, testRef, small("a", "b", "c")...)
		})
	}
}

// Whatever is wrong with the archive without some layers, the whole one follows,
// and the result is right.
func TestLoadFallsBack(t *testing.T) {
	d := small("d")
	for name, c := range map[string]struct {
		quirks enginetest.Quirks
		lies   bool
	}{
		"refused":                    {quirks: enginetest.Quirks{RefuseDelta: true}},
		"wrong guess":                {lies: true},
		"wrong guess, kept silently": {quirks: enginetest.Quirks{SilentBroken: true}, lies: true},
	} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, docker, file := prepared(t, o)
			layers := small("a", "b", "c")
			without := []int{0, 1}
			if c.lies {
				layers = append(layers, d...)
				file = stocked(t, testRef, layers...)
				for _, id := range file.Image.DiffIDs() {
					c.quirks.LieAboutLayers = append(c.quirks.LieAboutLayers, id.String())
				}
				without = []int{0, 1, 2, 3}
			}
			engine.SetQuirks(c.quirks)
			opts, log := options(t)
			result, err := Load(t.Context(), docker, file, opts)
			require.NoError(t, err, name)
			delta, size := archiveSize(t, file, without...), file.Layout.Size()
			assert.Equal(t, &Result{Outcome: Loaded, Streamed: delta + size, Total: size}, result, name)
			assert.Equal(t, []int64{delta, size}, engine.Loads(), name)
			assert.Equal(t, identity(file.Image, o), engine.Names()[testRef], name)
			requireFiles(t, engine, testRef, layers...)
			assert.Zero(t, engine.Containers(), name)
			assert.Contains(t, log.String(), "sending all of it", name)
		})
	}
}

// An engine that does not say what it has gets everything.
func TestLoadWithoutAList(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		docker.info = nil
		engine.SetQuirks(enginetest.Quirks{DenyInfo: true})
		opts, log := options(t)
		result, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		assert.Equal(t, Loaded, result.Outcome)
		assert.Contains(t, log.String(), "not for you")
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
	})
}

// Whatever fails, the reference names what it did before, or nothing, and the
// engine is as good as before: the next load is right.
func TestLoadFails(t *testing.T) {
	for name, c := range map[string]struct {
		quirks enginetest.Quirks
		want   error
		text   string
	}{
		"error in the answer": {enginetest.Quirks{ErrorInStream: "no such driver"}, ErrEngine, "no such driver"},
		"status":              {enginetest.Quirks{LoadStatus: 503}, ErrEngine, "status 503: load failed"},
		"disk full":           {enginetest.Quirks{StopReadingAfter: 6000}, ErrEngine, "no space left on device"},
		"cut answer":          {enginetest.Quirks{CutAnswerAfter: 10}, ErrEngine, "the answer ends early"},
		"wrong image":         {enginetest.Quirks{WrongImage: true}, ErrNotLoaded, "neither the config"},
		"no name":             {enginetest.Quirks{NoName: true}, ErrNotLoaded, "nothing has the reference"},
		"no container":        {enginetest.Quirks{CreateFails: true}, ErrNotLoaded, "error creating overlay mount"},
	} {
		for _, before := range []bool{false, true} {
			for _, delta := range []bool{false, true} {
				eachKind(t, func(t *testing.T, o enginetest.Options) {
					if c.quirks.NoName && before {
						return // the former image is what the reference names
					}
					if c.quirks.CreateFails && !verifiedByContainer(o) {
						return
					}
					engine, docker, file := prepared(t, o)
					opts, _ := options(t)
					opts.Whole = !delta
					if before {
						_, err := Load(t.Context(), docker, stocked(t, testRef, small("x")...), opts)
						require.NoError(t, err)
					}
					names := engine.Names()
					engine.SetQuirks(c.quirks)
					result, err := Load(t.Context(), docker, file, opts)
					require.ErrorIs(t, err, c.want, name)
					require.ErrorContains(t, err, c.text, name)
					require.ErrorContains(t, err, "load "+testRef+": ", name)
					assert.Empty(t, result.Outcome, name)
					assert.Equal(t, names, engine.Names(), name)
					assert.Zero(t, engine.Containers(), name)
					if before {
						requireFiles(t, engine, testRef, small("x")...)
					}
					requireFiles(t, engine, "docker.io/team/other:tag", small("a", "b")...)

					engine.SetQuirks(enginetest.Quirks{})
					_, err = Load(t.Context(), docker, file, opts)
					require.NoError(t, err, name)
					assert.Equal(t, identity(file.Image, o), engine.Names()[testRef], name)
					requireFiles(t, engine, testRef, small("a", "b", "c")...)
				})
			}
		}
	}
}

// An image that an earlier load has left unusable is loaded again, and if that
// fails it has no name any more.
func TestLoadOverAnUnusableImage(t *testing.T) {
	for _, version := range []string{"", "27.5.1"} {
		testLoadOverAnUnusableImage(t, enginetest.Options{Kind: enginetest.Containerd, Version: version})
	}
}

// breakImage makes the engine keep the image of a tarball without most of its layers.
func breakImage(t *testing.T, docker *docker, engine *enginetest.Engine, file *tarball.Tarball) {
	t.Helper()
	engine.SetQuirks(enginetest.Quirks{SilentBroken: true})
	archive, err := file.Archive(func(v1.Hash) bool { return true })
	require.NoError(t, err)
	r := archive.Open(t.Context())
	require.NoError(t, docker.Load(t.Context(), r, archive.Size()))
	require.NoError(t, r.Close())
	_, err = engine.Files(testRef)
	require.Error(t, err)
	engine.SetQuirks(enginetest.Quirks{})
	engine.Forget()
}

func testLoadOverAnUnusableImage(t *testing.T, o enginetest.Options) {
	for _, fails := range []bool{false, true} {
		engine, docker, file := prepared(t, o)
		breakImage(t, docker, engine, file)
		opts, log := options(t)
		if fails {
			engine.SetQuirks(enginetest.Quirks{StopReadingAfter: 1})
			_, err := Load(t.Context(), docker, file, opts)
			require.ErrorIs(t, err, ErrEngine)
			assert.NotContains(t, engine.Names(), testRef)
			continue
		}
		result, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
		if o.Version != "" {
			assert.Contains(t, log.String(), "cannot be used: loading it again")
			continue
		}
		assert.Equal(t, Delta, result.Outcome)
		// What an unusable image lists is not there.
		assert.Equal(t, []int64{archiveSize(t, file, 0, 1)}, engine.Loads())
		assert.Empty(t, log.String())
	}
}

// What the engine itself reports counts, also when a container can be created.
func TestLoadReportedAsIncomplete(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{Kind: enginetest.Containerd})
	names := engine.Names()
	engine.SetQuirks(enginetest.Quirks{Incomplete: true})
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, file, opts)
	require.ErrorIs(t, err, ErrNotLoaded)
	require.ErrorContains(t, err, "image "+file.Image.Digest().String()+" is incomplete")
	assert.Equal(t, names, engine.Names())
}

// When the engine does not let the name be put right, that is logged.
func TestLoadCannotUndo(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{Kind: enginetest.Podman})
	engine.SetQuirks(enginetest.Quirks{CreateFails: true, TagFails: true})
	opts, log := options(t)
	_, err := Load(t.Context(), docker, file, opts)
	require.ErrorIs(t, err, ErrNotLoaded)
	assert.Contains(t, log.String(), "could not be put right")
	assert.Contains(t, log.String(), "image is in use")
}

// cannotRename is an engine that removes a name, and gives it to no other image.
type cannotRename struct{ *docker }

func (c cannotRename) Name(ctx context.Context, reference string, id v1.Hash) error {
	if id != (v1.Hash{}) {
		return errors.New("no such image")
	}
	return c.docker.Name(ctx, reference, id)
}

// When the former image is gone, nothing has its name.
func TestLoadCannotGiveTheNameBack(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{Kind: enginetest.Podman})
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, newShelf(t).stock("x", testRef, small("x")...), opts)
	require.NoError(t, err)
	engine.SetQuirks(enginetest.Quirks{CreateFails: true})
	_, err = Load(t.Context(), cannotRename{docker}, file, opts)
	require.ErrorIs(t, err, ErrNotLoaded)
	assert.NotContains(t, engine.Names(), testRef)
}

// Of a damaged tarball no engine ever gets an image, and it is not sent twice.
func TestLoadCorruptTarball(t *testing.T) {
	for _, n := range []int{0, 2} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, file := enginetest.New(t, o), newShelf(t).stock("image", testRef, small("a", "b", "c")...)
			corrupt(t, file, n)
			opts, _ := options(t)
			result, err := Load(t.Context(), connect(t, engine), file, opts)
			require.ErrorIs(t, err, tarball.ErrDigest)
			require.NotErrorIs(t, err, ErrEngine)
			assert.ErrorContains(t, err, file.Name())
			if o.Kind == enginetest.Classic { // it verifies layers itself
				assert.Equal(t, result.Streamed, file.Layout.Size())
			} else {
				assert.Less(t, result.Streamed, file.Layout.Size())
			}
			assert.LessOrEqual(t, len(engine.Loads()), 1)
			assert.Empty(t, engine.Names())
			assert.Empty(t, engine.IDs())
		})
		// Nor of one that lacks layers which are there.
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, docker, _ := prepared(t, o)
			file := newShelf(t).stock("image", testRef, small("a", "b", "c")...)
			names := engine.Names()
			corrupt(t, file, n)
			opts, _ := options(t)
			_, err := Load(t.Context(), docker, file, opts)
			if n == 0 { // that one is not read
				require.NoError(t, err)
				requireFiles(t, engine, testRef, small("a", "b", "c")...)
				return
			}
			require.ErrorIs(t, err, tarball.ErrDigest)
			assert.LessOrEqual(t, len(engine.Loads()), 1)
			assert.Equal(t, names, engine.Names())
		})
	}
}

// replacements are what another process may do to the file at a tarball's path.
var replacements = map[string]func(s *shelf, file *tarball.Tarball){
	"replaced":                    func(s *shelf, file *tarball.Tarball) { s.replace(file, testRef, small("n")...) },
	"replaced by another's image": func(s *shelf, file *tarball.Tarball) { s.replace(file, "docker.io/team/image:other", small("n")...) },
	"removed":                     func(s *shelf, file *tarball.Tarball) { require.NoError(s.t, os.Remove(file.Name())) },
}

// Another process replaces or removes the tarball just when it is about to be sent: the
// image of the one that was opened is loaded.
func TestLoadReplacedTarball(t *testing.T) {
	for name, replace := range replacements {
		t.Run(name, func(t *testing.T) {
			engine, docker, _ := prepared(t, enginetest.Options{})
			s := newShelf(t)
			file := s.stock("image", testRef, small("a", "v1")...)
			var once sync.Once
			engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
				if r.Path == "/images/json" {
					once.Do(func() { replace(s, file) })
				}
			}})
			opts, log := options(t)
			result, err := Load(t.Context(), docker, file, opts)
			require.NoError(t, err)
			size := archiveSize(t, file, 0)
			assert.Equal(t, &Result{Outcome: Delta, Streamed: size, Total: file.Layout.Size()}, result)
			assert.Equal(t, []int64{size}, engine.Loads())
			assert.Equal(t, file.Image.ConfigDigest().String(), engine.Names()[testRef])
			requireFiles(t, engine, testRef, small("a", "v1")...)
			assert.Empty(t, log.String())
		})
	}
}

// The same in the middle of a file that is too large to have been read ahead.
func TestLoadReplacedInTheMiddle(t *testing.T) {
	for name, replace := range replacements {
		t.Run(name, func(t *testing.T) {
			engine, s := enginetest.New(t, enginetest.Options{}), newShelf(t)
			var layers []layer
			for _, n := range []string{"a", "b", "c", "d", "e"} {
				layers = append(layers, layer{n, 4 << 20})
			}
			file := s.stock("image", testRef, layers...)
			paused, resume := make(chan struct{}), make(chan struct{}, 1)
			engine.SetQuirks(enginetest.Quirks{PauseAfter: 1 << 20, Paused: paused, Resume: resume})
			opts, _ := options(t)
			docker := connect(t, engine)
			var result *Result
			var group errgroup.Group
			group.Go(func() (err error) {
				result, err = Load(t.Context(), docker, file, opts)
				return err
			})
			<-paused
			engine.SetQuirks(enginetest.Quirks{})
			replace(s, file)
			resume <- struct{}{}
			require.NoError(t, group.Wait())
			assert.Equal(t, Loaded, result.Outcome)
			assert.Equal(t, map[string]string{testRef: file.Image.ConfigDigest().String()}, engine.Names())
			requireFiles(t, engine, testRef, layers...)
			assert.Len(t, engine.Loads(), 1)
		})
	}
}

// foreign is an engine of another package: it has no optional interface, and does not
// say whether an image is whole.
type foreign struct {
	Engine
	verified int
}

func (f *foreign) Find(ctx context.Context, reference string) (v1.Hash, State, error) {
	id, _, err := f.Engine.Find(ctx, reference)
	return id, Unknown, err
}

func (f *foreign) Verify(ctx context.Context, id v1.Hash) error {
	f.verified++
	return f.Engine.Verify(ctx, id)
}

// An engine that does not say whether an image is whole is asked to verify it, as
// Docker 25 to 27 are.
func TestLoadIntoAForeignEngine(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{Kind: enginetest.Containerd})
	breakImage(t, docker, engine, file)
	other := &foreign{Engine: docker}
	opts, log := options(t)
	opts.NoPull = false
	result, err := Load(t.Context(), other, file, opts)
	require.NoError(t, err)
	assert.Equal(t, Delta, result.Outcome)
	assert.Contains(t, log.String(), "cannot be used: loading it again")
	assert.Equal(t, 3, other.verified, "before and after it had the lock, and the result")
	assert.Zero(t, engine.Pulls())
	requireFiles(t, engine, testRef, small("a", "b", "c")...)

	engine.Forget()
	result, err = Load(t.Context(), other, file, opts)
	require.NoError(t, err)
	assert.Equal(t, Present, result.Outcome)
	assert.Equal(t, 4, other.verified)
	assert.Empty(t, engine.Loads())
}

// Nor is a missing argument a panic.
func TestLoadOfNothing(t *testing.T) {
	for _, c := range []struct {
		engine Engine
		file   *tarball.Tarball
	}{{nil, nil}, {nil, stocked(t, testRef, small("a")...)}, {&foreign{}, nil}} {
		result, err := Load(t.Context(), c.engine, c.file, nil)
		require.EqualError(t, err, "load: an engine and a tarball are required")
		assert.Equal(t, &Result{}, result)
	}
}

// The load ends with its context, and what the reference named before stays.
func TestLoadCancelled(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, _ := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, stocked(t, testRef, small("x")...), opts)
		require.NoError(t, err)
		names := engine.Names()
		file := stocked(t, testRef, layer{"a", 3000}, layer{"large", 12 << 20})
		paused, resume := make(chan struct{}), make(chan struct{}, 1)
		engine.SetQuirks(enginetest.Quirks{PauseAfter: 10_000, Paused: paused, Resume: resume})
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("the job was stopped")
		var group errgroup.Group
		group.Go(func() error {
			_, err := Load(ctx, docker, file, opts)
			return err
		})
		<-paused
		cancel(reason)
		err = group.Wait()
		require.ErrorIs(t, err, reason)
		require.NotErrorIs(t, err, ErrUnreachable)
		assert.Equal(t, "load "+testRef+": the job was stopped", err.Error())
		resume <- struct{}{}
		assert.Equal(t, names, engine.Names())
		requireFiles(t, engine, testRef, small("x")...)
	})
}

// When only the verification is left it is ended, since nothing else could remove the
// container; then the image is there, and that is no failure.
func TestLoadCancelledAtTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if r.Path == "/containers/create" {
				cancel()
			}
		}})
		opts, _ := options(t)
		result, err := Load(ctx, docker, file, opts)
		require.NoError(t, err)
		assert.Equal(t, Delta, result.Outcome)
		assert.Zero(t, engine.Containers())
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
	})
}

// Between the load and the verification it does end: the name goes back.
func TestLoadCancelledBeforeTheVerification(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		names := engine.Names()
		ctx, cancel := context.WithCancel(t.Context())
		loaded := false
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if loaded && strings.HasSuffix(r.Path, "/json") {
				cancel()
			}
			loaded = loaded || r.Path == "/images/load"
		}})
		opts, _ := options(t)
		_, err := Load(ctx, docker, file, opts)
		require.ErrorIs(t, err, context.Canceled)
		assert.Len(t, engine.Loads(), 1)
		assert.Equal(t, names, engine.Names())
		assert.Zero(t, engine.Containers())
	})
}

func TestLoadWithoutAnEngine(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{})
	engine.Close()
	opts, _ := options(t)
	result, err := Load(t.Context(), docker, file, opts)
	require.ErrorIs(t, err, ErrUnreachable)
	assert.Equal(t, &Result{Total: file.Layout.Size()}, result)
	_, err = Load(t.Context(), docker, file, nil)
	require.ErrorIs(t, err, ErrUnreachable)
}

// waiters is a log that notifies of each load that waits for another.
type waiters struct {
	logged
	waits chan struct{}
}

func (w *waiters) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("waiting for it")) {
		w.waits <- struct{}{}
	}
	return w.logged.Write(p)
}

// Of several that want the same image one sends it, and the others find it there.
func TestLoadOnceOnAMachine(t *testing.T) {
	engine, _, file := prepared(t, enginetest.Options{})
	const many = 4
	paused, resume := make(chan struct{}), make(chan struct{}, many)
	engine.SetQuirks(enginetest.Quirks{Paused: paused, Resume: resume})
	log := &waiters{waits: make(chan struct{})}
	opts := &Options{NoPull: true, LockDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))}
	outcomes := make(chan Outcome, many)
	load := func() error {
		docker, err := openDocker(t.Context(), Host{Address: engine.Address()})
		if err != nil {
			return err
		}
		result, err := Load(t.Context(), docker, file, opts)
		outcomes <- result.Outcome
		return err
	}
	var group errgroup.Group
	group.Go(load)
	<-paused // it has the lock
	for range many - 1 {
		group.Go(load)
	}
	for range many - 1 {
		select {
		case <-log.waits:
		case <-paused:
			t.Error("two send it")
			resume <- struct{}{}
		}
	}
	resume <- struct{}{}
	require.NoError(t, group.Wait())
	close(outcomes)
	count := map[Outcome]int{}
	for o := range outcomes {
		count[o]++
	}
	assert.Equal(t, map[Outcome]int{Delta: 1, Present: many - 1}, count)
	assert.Len(t, engine.Loads(), 1)
	assert.NotContains(t, log.String(), "not seen")
}

func TestBody(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100)
	var reported []tarball.Progress
	b := &body{r: iotest.HalfReader(bytes.NewReader(content)), total: 1000, progress: func(p tarball.Progress) { reported = append(reported, p) }}
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	assert.Equal(t, content, got)
	done, err := b.end()
	require.NoError(t, err)
	assert.EqualValues(t, 1000, done)
	assert.Equal(t, tarball.Progress{Done: 1000, Total: 1000}, reported[len(reported)-1])

	// Its own failure stays apart from the engine's.
	broken := errors.New("disk gone")
	b = &body{r: io.MultiReader(bytes.NewReader(content[:7]), iotest.ErrReader(broken))}
	_, err = io.ReadAll(b)
	require.Equal(t, broken, err)
	done, err = b.end()
	assert.EqualValues(t, 7, done)
	require.ErrorAs(t, err, new(*readError))
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "read the tarball: disk gone")

	// That it was closed is none: net/http reads on when the answer is there.
	b = &body{r: iotest.ErrReader(os.ErrClosed)}
	_, err = io.ReadAll(b)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = b.end()
	require.NoError(t, err)

	// Nor is progress reported when it has ended.
	b = &body{r: bytes.NewReader(content), progress: func(tarball.Progress) { t.Error("reported") }}
	_, _ = b.end()
	_, err = b.Read(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrClosed)
}

// careless is an engine that should verify layers and does not: it loads another
// archive than it is sent, which is as it should be.
type careless struct {
	*docker
	good *tarball.Tarball
}

func (c careless) Load(ctx context.Context, archive io.Reader, _ int64) error {
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	good, err := c.good.Archive(nil)
	if err != nil {
		return err
	}
	r := good.Open(ctx)
	defer r.Close()
	return c.docker.Load(ctx, r, good.Size())
}

// Where the engine verifies layers while it unpacks them, they are verified here all the
// same: a damaged tarball is found out whatever the engine says, and its name goes back.
func TestLayersAreVerifiedBesideTheEngine(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	docker := connect(t, engine)
	require.True(t, docker.VerifiesLayers(t.Context()))
	opts, _ := options(t)
	before := stocked(t, testRef, small("x")...)
	_, err := Load(t.Context(), docker, before, opts)
	require.NoError(t, err)
	names := engine.Names()

	good := stocked(t, testRef, small("a", "b")...)
	bad := newShelf(t).stock("image", testRef, small("a", "b")...)
	corrupt(t, bad, 1)
	result, err := Load(t.Context(), careless{docker, good}, bad, opts)
	require.ErrorIs(t, err, tarball.ErrDigest)
	assert.ErrorContains(t, err, bad.Name())
	assert.Empty(t, result.Outcome)
	assert.Equal(t, names, engine.Names())

	result, err = Load(t.Context(), careless{docker, good}, good, opts)
	require.NoError(t, err)
	assert.NotEmpty(t, result.Outcome)
}
