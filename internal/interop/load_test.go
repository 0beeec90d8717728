package interop

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// store is a directory of tarballs, and the registry that they come from.
type store struct {
	t      *testing.T
	id     string // which makes its layers others than those of all other stores
	server *registrytest.Server
	dir    *cache.Dir
}

func newStore(t *testing.T) *store {
	t.Helper()
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	return &store{t, fmt.Sprintf("%d-", stores.Add(1)), registrytest.New(t), dir}
}

// stores counts all. An engine may keep layers of images that were removed, as those of a
// load that was interrupted: no test shall find those of another.
var stores atomic.Int64

// stock makes an image of layers with these names, of 1 MiB each, and its tarball.
func (s *store) stock(name, repository string, layers ...string) *tarball.Tarball {
	s.t.Helper()
	var made []v1.Layer
	for _, layer := range layers {
		l, err := imagetest.Layer(s.id+layer, 1<<20)
		require.NoError(s.t, err)
		made = append(made, l)
	}
	image, err := imagetest.Image(made...)
	require.NoError(s.t, err)
	pushed, err := s.server.Push(repository, image)
	require.NoError(s.t, err)
	remote, err := registry.New(nil).Resolve(s.t.Context(), registry.DefaultPlatform(), pushed)
	require.NoError(s.t, err)
	_, err = s.dir.Stock(s.t.Context(), name, "registry.example/"+repository, remote, nil)
	require.NoError(s.t, err)
	stocked, err := s.dir.Get(s.t.Context(), name)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = stocked.Close() })
	return stocked
}

func (s *store) options() *loader.Options {
	return &loader.Options{LockDir: filepath.Join(s.t.TempDir(), "locks"), Logger: slog.New(slog.NewTextHandler(s.t.Output(), nil))}
}

// The bytes of what was loaded are those of the layers, file by file.
func requireSameFiles(t *testing.T, e engine, stocked *tarball.Tarball) {
	t.Helper()
	want := map[string]string{}
	for _, l := range stocked.Image.Layers() {
		blob, err := stocked.ReadRange(t.Context(), l.Digest, 0, l.Size)
		require.NoError(t, err)
		unpacked, err := gzip.NewReader(blob)
		require.NoError(t, err)
		readFiles(t, unpacked, want)
		require.NoError(t, blob.Close())
	}
	require.NotEmpty(t, want)
	have := e.files(t, stocked.Image.Reference())
	for name, content := range want {
		require.True(t, have[name] == content, "%s differs, or is missing", name)
	}
}

// readFiles gives the files of an archive: their content, or its sum if it is long. With the
// race detector, to keep and to compare long ones costs more than what engines do with them.
func readFiles(t *testing.T, r io.Reader, files map[string]string) {
	t.Helper()
	for entries := tar.NewReader(r); ; {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		files[h.Name] = readFile(t, entries, h.Size)
	}
}

// readDir is [readFiles] for a directory.
func readDir(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(path, dir+"/")] = readFile(t, f, info.Size())
		return nil
	}))
}

// readFile returns the content of a file of this size, or its sum if it is long.
func readFile(t *testing.T, r io.Reader, size int64) string {
	t.Helper()
	var to interface {
		io.Writer
		fmt.Stringer
	} = new(strings.Builder)
	if size > 4<<10 {
		to = fileSum{sha256.New()}
	}
	n, err := io.Copy(to, r)
	require.NoError(t, err)
	require.Equal(t, size, n)
	return to.String()
}

type fileSum struct{ hash.Hash }

func (s fileSum) String() string { return fmt.Sprintf("sha256:%x", s.Sum(nil)) }

// requireLoad loads, with one of these outcomes.
func requireLoad(t *testing.T, e engine, s *store, stocked *tarball.Tarball, want ...loader.Outcome) *loader.Result {
	t.Helper()
	result, err := loader.Load(t.Context(), e, stocked, s.options())
	require.NoError(t, err)
	require.Contains(t, want, result.Outcome)
	requireSameFiles(t, e, stocked)
	return result
}

func TestLoad(t *testing.T) {
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		first := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three", "four", "five")
		result := requireLoad(t, e, s, first, loader.Loaded)
		if e.pulled {
			assert.Greater(t, result.Streamed, int64(5<<20), "an empty engine needs all layers")
		} else {
			assert.Equal(t, first.Layout.Size(), result.Streamed, "an empty engine needs all of it")
		}
		result = requireLoad(t, e, s, first, loader.Present)
		assert.Zero(t, result.Streamed)

		// The next build of it: the last layer is another one.
		second := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three", "four", "six")
		result = requireLoad(t, e, s, second, loader.Delta)
		assert.Less(t, result.Streamed, int64(3<<20)/2, "one layer, and the metadata")

		// A sibling, whose layers are all there.
		sibling := s.stock("b_main.tar", "team/image:b-1", "one", "two", "three")
		result = requireLoad(t, e, s, sibling, loader.Delta)
		assert.Less(t, result.Streamed, int64(64<<10), "the metadata alone")

		// A layer that occurs twice is there only once: in containerd's store that is
		// enough.
		twice := s.stock("c_main.tar", "team/image:c-1", "one", "two", "one")
		requireLoad(t, e, s, twice, loader.Delta)

		// Another base: stores that know layers by their chains have nothing of it.
		result, err := loader.Load(t.Context(), e, s.stock("d_main.tar", "team/image:d-1", "nine", "one", "two"), s.options())
		require.NoError(t, err)
		if e.byBlob {
			assert.Equal(t, loader.Delta, result.Outcome)
		} else {
			assert.Equal(t, loader.Loaded, result.Outcome)
		}

		// Without its name it has to come again, but not the layers that others have.
		e.remove(t, second.Image.Reference())
		requireLoad(t, e, s, second, loader.Delta)
		assert.Zero(t, e.containers(t), "no container is left behind")
	})
}

// The classic store unpacks faster with unpigz: that it is missing is known by the daemon's
// environment, which is that of this process.
func TestAdvice(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		adviser, ok := e.Engine.(loader.Adviser)
		if !ok {
			return
		}
		_, err := exec.LookPath("unpigz")
		if says, _ := e.Engine.(loader.Describer).Describe(t.Context()); err == nil || !strings.Contains(says, "classic store") {
			assert.Empty(t, adviser.Advice(t.Context()))
			return
		}
		advice := adviser.Advice(t.Context())
		require.Len(t, advice, 1)
		assert.Contains(t, advice[0], "finds no program unpigz")
	})
}

// liar is an engine that claims to have layers which it has not.
type liar struct{ engine }

func (l liar) Has(_ context.Context, image *tarball.Image) (map[v1.Hash]bool, error) {
	has := map[v1.Hash]bool{}
	for _, layer := range image.Layers() {
		has[layer.Digest] = true
	}
	return has, nil
}

// deaf is one of which the answers to a load are dropped.
type deaf struct{ liar }

func (d deaf) Load(ctx context.Context, archive io.Reader, size int64) error {
	_ = d.liar.Load(ctx, archive, size)
	return nil
}

// A wrong guess costs a second try, and leaves nothing wrong behind, whether the
// engine says so or not.
func TestLoadAfterAWrongGuess(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		result, err := loader.Load(t.Context(), liar{e}, stocked, s.options())
		require.NoError(t, err)
		assert.Equal(t, loader.Loaded, result.Outcome)
		assert.Greater(t, result.Streamed, stocked.Layout.Size(), "both tries")
		requireSameFiles(t, e, stocked)
		next := s.stock("a_main.tar", "team/image:a-1", "three", "four")
		result, err = loader.Load(t.Context(), deaf{liar{e}}, next, s.options())
		require.NoError(t, err)
		assert.Equal(t, loader.Loaded, result.Outcome)
		requireSameFiles(t, e, next)
		assert.Zero(t, e.containers(t))
	})
}

// A corrupt tarball never becomes an image, and what had the name keeps it.
func TestLoadOfACorruptTarball(t *testing.T) {
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		good := s.stock("good_main.tar", "team/image:a-1", "one", "two")
		requireLoad(t, e, s, good, loader.Loaded)
		bad := s.stock("a_main.tar", "team/image:a-1", "one", "three")
		corrupt(t, bad)
		_, err := loader.Load(t.Context(), e, bad, s.options())
		require.ErrorIs(t, err, tarball.ErrDigest)
		requireLoad(t, e, s, good, loader.Present)
		other := s.stock("b_main.tar", "team/image:b-1", "one", "four")
		corrupt(t, other)
		_, err = loader.Load(t.Context(), e, other, s.options())
		require.ErrorIs(t, err, tarball.ErrDigest)
		id, _, err := e.Find(t.Context(), other.Image.Reference())
		require.NoError(t, err)
		assert.Zero(t, id)
	})
}

// corrupt changes a byte in the middle of the last layer.
func corrupt(t *testing.T, stocked *tarball.Tarball) {
	t.Helper()
	segments := stocked.Layout.Segments()
	last := segments[len(segments)-2]
	require.True(t, last.IsBlob())
	f, err := os.OpenFile(stocked.Name(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], last.Offset+last.Length/2)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], last.Offset+last.Length/2)
	require.NoError(t, err)
}

// The engine itself notices what the loader would send wrong, and says so: what is
// relied on besides.
func TestEnginesNoticeAMissingLayer(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		archive, err := stocked.Archive(func(v1.Hash) bool { return true })
		require.NoError(t, err)
		body := archive.Open(t.Context())
		defer body.Close()
		require.ErrorIs(t, e.Load(t.Context(), body, archive.Size()), loader.ErrEngine)
	})
}

// Engines that are sent archives whose layers are verified only beside them notice a wrong
// one themselves, and give its image no name.
func TestEnginesNoticeAWrongLayer(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		if !e.VerifiesLayers(t.Context()) {
			return // this one is not sent such archives
		}
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		corrupt(t, stocked)
		archive, err := stocked.Archive(nil)
		require.NoError(t, err)
		body := archive.OpenUnverified(t.Context())
		defer body.Close()
		require.ErrorIs(t, e.Load(t.Context(), body, archive.Size()), loader.ErrEngine)
		id, _, err := e.Find(t.Context(), stocked.Image.Reference())
		require.NoError(t, err)
		assert.Zero(t, id)
	})
}

// Of many that want an image one sends it.
func TestLoadOnceForAll(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three")
		options := s.options()
		program := buildExample(t, "load-image")
		var mu sync.Mutex
		outcomes := map[string]int{}
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				cmd := exec.Command(program, "-json", "-quiet", "-host", e.address, "-lock-dir", options.LockDir, "-dir", s.dir.Path(), stocked.Image.Reference())
				out, err := cmd.Output()
				assert.NoError(t, err)
				var line struct{ Outcome string }
				assert.NoError(t, json.Unmarshal(out, &line))
				mu.Lock()
				defer mu.Unlock()
				outcomes[line.Outcome]++
			})
		}
		group.Wait()
		assert.Equal(t, map[string]int{"loaded": 1, "present": 4}, outcomes)
	})
}

// Nothing is written to a disk but what the engine writes: a program that may make
// no file larger than 0 bytes does it all.
func TestLoadWritesNothing(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		program := buildExample(t, "load-image")
		out := run(t, "sh", "-c", `ulimit -f 0 && exec "$@" | cat`, "sh", program, "-quiet", "-host", e.address,
			"-lock-dir", s.options().LockDir, "-dir", s.dir.Path(), stocked.Image.Reference())
		assert.Regexp(t, "^loaded ", out)
		requireSameFiles(t, e, stocked)
	})
}

// stopAt ends a load when this part of it was sent.
func stopAt(part float64, stop func()) func(tarball.Progress) {
	return func(p tarball.Progress) {
		if float64(p.Done) >= part*float64(p.Total) {
			stop()
		}
	}
}

var errStopped = errors.New("stopped by the test")

// A load that is interrupted anywhere leaves the engine as it was, and the next
// one is right.
func TestLoadInterrupted(t *testing.T) {
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		before := s.stock("before_main.tar", "team/image:a-1", "zero")
		requireLoad(t, e, s, before, loader.Loaded)
		var next *tarball.Tarball
		for i, part := range []float64{0.01, 0.5, 0.99} {
			// Each time another image: some engines keep what they have got.
			next = s.stock("a_main.tar", "team/image:a-1", fmt.Sprint("one-", i), fmt.Sprint("two-", i), fmt.Sprint("three-", i))
			ctx, cancel := context.WithCancelCause(t.Context())
			o := s.options()
			o.Progress = stopAt(part, func() { cancel(errStopped) })
			_, err := loader.Load(ctx, e, next, o)
			require.ErrorIs(t, err, errStopped)
			requireLoad(t, e, s, before, loader.Present)
		}
		requireLoad(t, e, s, next, e.afterABreak()...)
	})
}

// The same with SIGKILL, which leaves no time to put anything right.
func TestLoadKilled(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three")
		// A named pipe in place of the tarball's rest would not be a tarball: so the
		// engine is what stops, as a proxy that lets through only the beginning.
		proxy, reached := stallAfter(t, e.socket, stocked.Layout.Size()/2)
		address := strings.TrimSuffix(e.address, e.socket) + proxy
		cmd := exec.Command(buildExample(t, "load-image"), "-no-pull", "-quiet", "-host", address, "-lock-dir", s.options().LockDir, "-dir", s.dir.Path(), stocked.Image.Reference())
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-reached:
		case err := <-ended:
			t.Fatalf("it ended before half of it was sent: %v", err)
		}
		require.NoError(t, cmd.Process.Kill())
		<-ended
		requireLoad(t, e, s, stocked, e.afterABreak()...)
	})
}

// A new version that takes the tarball's place when it was opened and not yet sent: what
// was opened is loaded.
func TestLoadOfAReplacedTarball(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		old := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three")
		s.stock("a_main.tar", "team/image:a-1", "one", "two", "four") // old has no name any more
		result, err := loader.Load(t.Context(), e, old, s.options())
		require.NoError(t, err)
		assert.Equal(t, loader.Loaded, result.Outcome)
		requireLoad(t, e, s, old, loader.Present)
		assert.Equal(t, old.Layout.Size(), result.Total)
	})
}
