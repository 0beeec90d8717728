package loader

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

func TestLoadWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, tarball := enginetest.New(t, o), stocked(t, testRef, small("a", "b", "a")...)
		var last cache.Progress
		opts, log := options(t)
		opts.Progress = func(p cache.Progress) {
			assert.Greater(t, p.Done, last.Done)
			last = p
		}
		result, err := Load(t.Context(), connect(t, engine), tarball, opts)
		require.NoError(t, err)
		size := tarball.Layout.Size()
		assert.Equal(t, &Result{Outcome: Loaded, Streamed: size, Total: size}, result)
		assert.Equal(t, cache.Progress{Done: size, Total: size}, last)
		assert.Equal(t, []int64{size}, engine.Loads())
		assert.Equal(t, map[string]string{testRef: identity(tarball.Image, o)}, engine.Names())
		requireFiles(t, engine, testRef, small("a", "b")...)
		assert.Zero(t, engine.Containers())
		assert.Empty(t, log.String())
	})
}

// Two requests, and none of those that cost an engine something.
func TestLoadPresent(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, tarball := enginetest.New(t, o), newShelf(t).stock("image", testRef, small("a", "b")...)
		opts, log := options(t)
		_, err := Load(t.Context(), connect(t, engine), tarball, opts)
		require.NoError(t, err)
		engine.Forget()
		corrupt(t, tarball, 0) // nothing is read
		result, err := Load(t.Context(), connect(t, engine), tarball, opts)
		require.NoError(t, err)
		assert.Equal(t, &Result{Outcome: Present, Total: tarball.Layout.Size()}, result)
		assert.Empty(t, log.String())
		want := []string{"GET /_ping", "GET /images/" + testRef + "/json"}
		if provenByContainer(o) && o.Kind == enginetest.Containerd { // it does not say that the image is whole
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
			tarball := stocked(t, testRef, small(c.image...)...)
			omitted := c.chains
			if o.Kind == enginetest.Containerd {
				omitted = c.blobs
			}
			want := Delta
			if omitted == nil {
				want = Loaded
			}
			result, err := Load(t.Context(), docker, tarball, opts)
			require.NoError(t, err, name)
			size := archiveSize(t, tarball, omitted...)
			assert.Equal(t, &Result{Outcome: want, Streamed: size, Total: tarball.Layout.Size()}, result, name)
			assert.Equal(t, size, engine.Loads()[1], name)
			assert.Equal(t, identity(tarball.Image, o), engine.Names()[testRef], name)
			requireFiles(t, engine, testRef, small(c.image...)...)
			requireFiles(t, engine, "docker.io/team/other:tag", small(c.there...)...)
			assert.Empty(t, log.String(), name)
		})
	}
}

// prepared is an engine that has the layers a and b, and a tarball of a, b, c.
func prepared(t *testing.T, o enginetest.Options) (*enginetest.Engine, *Docker, *cache.Tarball) {
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
			engine, docker, tarball := prepared(t, o)
			docker.info = nil // it is asked again
			engine.SetQuirks(q)
			opts, _ := options(t)
			opts.Whole = q.BrokenInspect
			result, err := Load(t.Context(), docker, tarball, opts)
			require.NoError(t, err, name)
			size := tarball.Layout.Size()
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
			engine, docker, tarball := prepared(t, o)
			layers := small("a", "b", "c")
			without := []int{0, 1}
			if c.lies {
				layers = append(layers, d...)
				tarball = stocked(t, testRef, layers...)
				for _, id := range tarball.Image.DiffIDs() {
					c.quirks.LieAboutLayers = append(c.quirks.LieAboutLayers, id.String())
				}
				without = []int{0, 1, 2, 3}
			}
			engine.SetQuirks(c.quirks)
			opts, log := options(t)
			result, err := Load(t.Context(), docker, tarball, opts)
			require.NoError(t, err, name)
			delta, size := archiveSize(t, tarball, without...), tarball.Layout.Size()
			assert.Equal(t, &Result{Outcome: Loaded, Streamed: delta + size, Total: size}, result, name)
			assert.Equal(t, []int64{delta, size}, engine.Loads(), name)
			assert.Equal(t, identity(tarball.Image, o), engine.Names()[testRef], name)
			requireFiles(t, engine, testRef, layers...)
			assert.Zero(t, engine.Containers(), name)
			assert.Contains(t, log.String(), "sending all of it", name)
		})
	}
}

// An engine that does not tell what it has gets everything.
func TestLoadWithoutAList(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		docker.info = nil
		engine.SetQuirks(enginetest.Quirks{DenyInfo: true})
		opts, log := options(t)
		result, err := Load(t.Context(), docker, tarball, opts)
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
		"wrong image":         {enginetest.Quirks{WrongImage: true}, ErrUnproven, "neither the config"},
		"no name":             {enginetest.Quirks{NoName: true}, ErrUnproven, "nothing has the reference"},
		"no container":        {enginetest.Quirks{CreateFails: true}, ErrUnproven, "error creating overlay mount"},
	} {
		for _, before := range []bool{false, true} {
			for _, delta := range []bool{false, true} {
				eachKind(t, func(t *testing.T, o enginetest.Options) {
					if c.quirks.NoName && before {
						return // the former image is what the reference names
					}
					if c.quirks.CreateFails && !provenByContainer(o) {
						return
					}
					engine, docker, tarball := prepared(t, o)
					opts, _ := options(t)
					opts.Whole = !delta
					if before {
						_, err := Load(t.Context(), docker, stocked(t, testRef, small("x")...), opts)
						require.NoError(t, err)
					}
					names := engine.Names()
					engine.SetQuirks(c.quirks)
					result, err := Load(t.Context(), docker, tarball, opts)
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
					_, err = Load(t.Context(), docker, tarball, opts)
					require.NoError(t, err, name)
					assert.Equal(t, identity(tarball.Image, o), engine.Names()[testRef], name)
					requireFiles(t, engine, testRef, small("a", "b", "c")...)
				})
			}
		}
	}
}

// An image that an earlier load has left unusable is loaded anew, and if that
// fails it has no name any more.
func TestLoadOverAnUnusableImage(t *testing.T) {
	for _, version := range []string{"", "27.5.1"} {
		testLoadOverAnUnusableImage(t, enginetest.Options{Kind: enginetest.Containerd, Version: version})
	}
}

func testLoadOverAnUnusableImage(t *testing.T, o enginetest.Options) {
	for _, fails := range []bool{false, true} {
		engine, docker, tarball := prepared(t, o)
		engine.SetQuirks(enginetest.Quirks{SilentBroken: true})
		archive, err := tarball.Archive(func(v1.Hash) bool { return true })
		require.NoError(t, err)
		r := archive.Open(t.Context())
		require.NoError(t, docker.Load(t.Context(), r, archive.Size()))
		require.NoError(t, r.Close())
		_, err = engine.Files(testRef)
		require.Error(t, err)
		engine.Forget()

		opts, log := options(t)
		if fails {
			engine.SetQuirks(enginetest.Quirks{StopReadingAfter: 1})
			_, err := Load(t.Context(), docker, tarball, opts)
			require.ErrorIs(t, err, ErrEngine)
			assert.NotContains(t, engine.Names(), testRef)
			continue
		}
		result, err := Load(t.Context(), docker, tarball, opts)
		require.NoError(t, err)
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
		if o.Version != "" {
			assert.Contains(t, log.String(), "cannot be used: loading it again")
			continue
		}
		assert.Equal(t, Delta, result.Outcome)
		// What an unusable image lists is not there.
		assert.Equal(t, []int64{archiveSize(t, tarball, 0, 1)}, engine.Loads())
		assert.Empty(t, log.String())
	}
}

// The engine's own word counts, also when a container can be made.
func TestLoadSaidToBeIncomplete(t *testing.T) {
	engine, docker, tarball := prepared(t, enginetest.Options{Kind: enginetest.Containerd})
	names := engine.Names()
	engine.SetQuirks(enginetest.Quirks{Incomplete: true})
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, tarball, opts)
	require.ErrorIs(t, err, ErrUnproven)
	require.ErrorContains(t, err, "image "+tarball.Image.Digest().String()+" is incomplete")
	assert.Equal(t, names, engine.Names())
}

// When the engine does not let the name be put right, that is said.
func TestLoadCannotUndo(t *testing.T) {
	engine, docker, tarball := prepared(t, enginetest.Options{Kind: enginetest.Podman})
	engine.SetQuirks(enginetest.Quirks{CreateFails: true, TagFails: true})
	opts, log := options(t)
	_, err := Load(t.Context(), docker, tarball, opts)
	require.ErrorIs(t, err, ErrUnproven)
	assert.Contains(t, log.String(), "could not be put right")
	assert.Contains(t, log.String(), "image is in use")
}

// cannotRename is an engine that takes a name away, and gives it to no other image.
type cannotRename struct{ *Docker }

func (c cannotRename) Name(ctx context.Context, reference string, id v1.Hash) error {
	if id != (v1.Hash{}) {
		return errors.New("no such image")
	}
	return c.Docker.Name(ctx, reference, id)
}

// When the former image is gone, nothing has its name.
func TestLoadCannotGiveTheNameBack(t *testing.T) {
	engine, docker, tarball := prepared(t, enginetest.Options{Kind: enginetest.Podman})
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, newShelf(t).stock("x", testRef, small("x")...), opts)
	require.NoError(t, err)
	engine.SetQuirks(enginetest.Quirks{CreateFails: true})
	_, err = Load(t.Context(), cannotRename{docker}, tarball, opts)
	require.ErrorIs(t, err, ErrUnproven)
	assert.NotContains(t, engine.Names(), testRef)
}

// Of a damaged tarball no engine ever gets an image, and it is not sent twice.
func TestLoadCorruptTarball(t *testing.T) {
	for _, n := range []int{0, 2} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, tarball := enginetest.New(t, o), newShelf(t).stock("image", testRef, small("a", "b", "c")...)
			corrupt(t, tarball, n)
			opts, _ := options(t)
			result, err := Load(t.Context(), connect(t, engine), tarball, opts)
			require.ErrorIs(t, err, cache.ErrBlobDigest)
			require.NotErrorIs(t, err, ErrEngine)
			assert.ErrorContains(t, err, tarball.Path)
			if o.Kind == enginetest.Classic { // it proves layers itself
				assert.Equal(t, result.Streamed, tarball.Layout.Size())
			} else {
				assert.Less(t, result.Streamed, tarball.Layout.Size())
			}
			assert.LessOrEqual(t, len(engine.Loads()), 1)
			assert.Empty(t, engine.Names())
			assert.Empty(t, engine.IDs())
		})
		// Nor of one that lacks layers which are there.
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, docker, _ := prepared(t, o)
			tarball := newShelf(t).stock("image", testRef, small("a", "b", "c")...)
			names := engine.Names()
			corrupt(t, tarball, n)
			opts, _ := options(t)
			_, err := Load(t.Context(), docker, tarball, opts)
			if n == 0 { // that one is not read
				require.NoError(t, err)
				requireFiles(t, engine, testRef, small("a", "b", "c")...)
				return
			}
			require.ErrorIs(t, err, cache.ErrBlobDigest)
			assert.LessOrEqual(t, len(engine.Loads()), 1)
			assert.Equal(t, names, engine.Names())
		})
	}
}

// Another writer publishes a tarball just when this one is about to be sent, again
// and again: the third is the last that is tried.
func TestLoadReplacedTarball(t *testing.T) {
	for replaced, want := range map[int]string{1: "v2", 2: "v3", 3: ""} {
		engine, docker, _ := prepared(t, enginetest.Options{})
		names := engine.Names()
		shelf := newShelf(t)
		tarball := shelf.stock("image", testRef, small("a", "v1")...)
		times := 0
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if r.Path == "/images/json" && times < replaced {
				times++
				shelf.stock("image", testRef, small("a", []string{"v1", "v2", "v3", "v4"}[times])...)
			}
		}})
		opts, _ := options(t)
		result, err := Load(t.Context(), docker, tarball, opts)
		if want == "" {
			require.ErrorIs(t, err, cache.ErrReplaced)
			assert.Equal(t, names, engine.Names())
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, Delta, result.Outcome)
		requireFiles(t, engine, testRef, small("a", want)...)
		now, err := cache.ReadTarball(tarball.Path)
		require.NoError(t, err)
		assert.Equal(t, now.Layout.Size(), result.Total)
		assert.Equal(t, now.Image.ConfigDigest().String(), engine.Names()[testRef])
	}
}

// The same in the middle of a file that is too large to have been read ahead.
func TestLoadReplacedInTheMiddle(t *testing.T) {
	for name, ref := range map[string]string{"same": testRef, "other": "docker.io/team/image:other", "gone": ""} {
		t.Run(name, func(t *testing.T) {
			engine, shelf := enginetest.New(t, enginetest.Options{}), newShelf(t)
			var layers []layer
			for _, n := range []string{"a", "b", "c", "d", "e"} {
				layers = append(layers, layer{n, 4 << 20})
			}
			tarball := shelf.stock("image", testRef, layers...)
			paused, resume := make(chan struct{}), make(chan struct{}, 1)
			engine.SetQuirks(enginetest.Quirks{PauseAfter: 1 << 20, Paused: paused, Resume: resume})
			opts, _ := options(t)
			docker := connect(t, engine)
			var result *Result
			var group errgroup.Group
			group.Go(func() (err error) {
				result, err = Load(t.Context(), docker, tarball, opts)
				return err
			})
			<-paused
			engine.SetQuirks(enginetest.Quirks{})
			if ref == "" {
				require.NoError(t, os.Remove(tarball.Path))
			} else {
				shelf.stock("image", ref, small("n")...)
			}
			resume <- struct{}{}
			err := group.Wait()
			switch name {
			case "same":
				require.NoError(t, err)
				assert.Equal(t, Loaded, result.Outcome)
				requireFiles(t, engine, testRef, small("n")...)
				return
			case "other":
				require.ErrorIs(t, err, cache.ErrReplaced)
				require.ErrorContains(t, err, "it holds docker.io/team/image:other now")
			case "gone":
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			assert.Empty(t, engine.Names())
			assert.Empty(t, engine.IDs())
			assert.Len(t, engine.Loads(), 1)
		})
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
		tarball := stocked(t, testRef, layer{"a", 3000}, layer{"large", 12 << 20})
		paused, resume := make(chan struct{}), make(chan struct{}, 1)
		engine.SetQuirks(enginetest.Quirks{PauseAfter: 10_000, Paused: paused, Resume: resume})
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("the job was stopped")
		var group errgroup.Group
		group.Go(func() error {
			_, err := Load(ctx, docker, tarball, opts)
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

// When only the proof is left it is ended, since nobody else could remove the
// container; then the image is there, and that is no failure.
func TestLoadCancelledAtTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if r.Path == "/containers/create" {
				cancel()
			}
		}})
		opts, _ := options(t)
		result, err := Load(ctx, docker, tarball, opts)
		require.NoError(t, err)
		assert.Equal(t, Delta, result.Outcome)
		assert.Zero(t, engine.Containers())
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
	})
}

// Between the load and the proof there is no going on: the name goes back.
func TestLoadCancelledBeforeTheProof(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		names := engine.Names()
		ctx, cancel := context.WithCancel(t.Context())
		finds := 0
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if r.Path == "/images/"+testRef+"/json" {
				if finds++; finds == 3 { // before and after it had the lock, and now
					cancel()
				}
			}
		}})
		opts, _ := options(t)
		_, err := Load(ctx, docker, tarball, opts)
		require.ErrorIs(t, err, context.Canceled)
		assert.Len(t, engine.Loads(), 1)
		assert.Equal(t, names, engine.Names())
		assert.Zero(t, engine.Containers())
	})
}

func TestLoadWithoutAnEngine(t *testing.T) {
	engine, docker, tarball := prepared(t, enginetest.Options{})
	engine.Close()
	opts, _ := options(t)
	result, err := Load(t.Context(), docker, tarball, opts)
	require.ErrorIs(t, err, ErrUnreachable)
	assert.Equal(t, &Result{Total: tarball.Layout.Size()}, result)
	_, err = Load(t.Context(), docker, tarball, nil)
	require.ErrorIs(t, err, ErrUnreachable)
}

// waiters is a log that tells of each who waits for another.
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
	engine, _, tarball := prepared(t, enginetest.Options{})
	const many = 4
	paused, resume := make(chan struct{}), make(chan struct{}, many)
	engine.SetQuirks(enginetest.Quirks{Paused: paused, Resume: resume})
	log := &waiters{waits: make(chan struct{})}
	opts := &Options{NoPull: true, LockDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))}
	outcomes := make(chan Outcome, many)
	load := func() error {
		docker, err := Connect(t.Context(), Host{Address: engine.Address()})
		if err != nil {
			return err
		}
		result, err := Load(t.Context(), docker, tarball, opts)
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
