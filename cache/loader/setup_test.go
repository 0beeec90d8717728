package loader

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

const testRef = "docker.io/team/image:tag"

// kinds are the engines that everything has to work with.
var kinds = map[string]enginetest.Options{
	"classic":    {Kind: enginetest.Classic},
	"containerd": {Kind: enginetest.Containerd},
	"docker 27":  {Kind: enginetest.Containerd, Version: "27.5.1"},
	"podman":     {Kind: enginetest.Podman},
}

func eachKind(t *testing.T, test func(t *testing.T, o enginetest.Options)) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) { test(t, o) })
	}
}

// verifiedByContainer reports whether nothing else says of an engine's image that it can
// be used.
func verifiedByContainer(o enginetest.Options) bool {
	return o.Kind == enginetest.Podman || o.Kind == enginetest.Containerd && o.Version != ""
}

// identity is what an engine calls an image.
func identity(image *tarball.Image, o enginetest.Options) string {
	if o.Kind == enginetest.Containerd {
		return image.Digest().String()
	}
	return image.ConfigDigest().String()
}

// shelf is a directory of tarballs.
type shelf struct {
	t   *testing.T
	dir *cache.Dir
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	return &shelf{t, dir}
}

// layer is one with some bytes of data, named a, b, c and so on.
type layer struct {
	name string
	size int
}

// small are layers by their names.
func small(names ...string) (layers []layer) {
	for _, n := range names {
		layers = append(layers, layer{n, 3000})
	}
	return layers
}

// put puts the image of these layers, bottom first, into NAME_main.tar, in place
// of what is there, and returns that name.
func (s *shelf) put(name, ref string, layers ...layer) string {
	s.t.Helper()
	var made []v1.Layer
	for _, l := range layers {
		m, err := imagetest.Layer(l.name, l.size)
		require.NoError(s.t, err)
		made = append(made, m)
	}
	image, source, err := tarballtest.Image(ref, made...)
	require.NoError(s.t, err)
	_, err = s.dir.Put(s.t.Context(), name+"_main.tar", image, source, nil)
	require.NoError(s.t, err)
	return name + "_main.tar"
}

// replace puts another image in place of a tarball.
func (s *shelf) replace(file *tarball.Tarball, ref string, layers ...layer) {
	s.t.Helper()
	s.put(strings.TrimSuffix(filepath.Base(file.Name()), "_main.tar"), ref, layers...)
}

// stock is put, and opens the tarball.
func (s *shelf) stock(name, ref string, layers ...layer) *tarball.Tarball {
	s.t.Helper()
	file, err := s.dir.Get(s.t.Context(), s.put(name, ref, layers...))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, file.Close()) })
	return file
}

// shared are the tarballs that all tests only read, by reference and layers: to
// write one takes longer than to load it.
var shared struct {
	sync.Mutex
	dir  string
	made map[string]*tarball.Tarball
}

// holderVariable makes this program the other process of a test of locks.
const holderVariable = "LOADER_TEST_HOLDS_LOCK_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderVariable); dir != "" {
		holdLock(dir)
		return
	}
	var err error
	if shared.dir, err = os.MkdirTemp("", "loader"); err != nil {
		panic(err)
	}
	_ = os.Setenv("TMPDIR", shared.dir) // also of the default LockDir
	_ = os.Unsetenv("XDG_RUNTIME_DIR")
	shared.made = map[string]*tarball.Tarball{}
	code := m.Run()
	_ = os.RemoveAll(shared.dir)
	os.Exit(code)
}

// stocked returns an open tarball that may not be changed or closed.
func stocked(t *testing.T, ref string, layers ...layer) *tarball.Tarball {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	key := fmt.Sprint(ref, layers)
	if shared.made[key] == nil {
		dir, err := cache.Open(shared.dir, nil)
		require.NoError(t, err)
		s := &shelf{t, dir}
		shared.made[key], err = dir.Get(context.Background(), s.put(fmt.Sprintf("image%d", len(shared.made)), ref, layers...))
		require.NoError(t, err)
	}
	return shared.made[key]
}

// corrupt changes a byte of a tarball's nth layer, in the middle of it.
func corrupt(t *testing.T, file *tarball.Tarball, n int) {
	t.Helper()
	f, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	digest := file.Image.Layers()[n].Digest
	for _, s := range file.Layout.Segments() {
		if s.Blob != digest {
			continue
		}
		at, one := s.Offset+s.Length/2, make([]byte, 1)
		_, err := f.ReadAt(one, at)
		require.NoError(t, err)
		one[0] ^= 1
		_, err = f.WriteAt(one, at)
		require.NoError(t, err)
		return
	}
	t.Fatal("no such layer")
}

func connect(t *testing.T, engine *enginetest.Engine) *docker {
	t.Helper()
	docker, err := openDocker(t.Context(), Host{Address: engine.Address()})
	require.NoError(t, err)
	return docker
}

// options are those of tests: a lock of their own, and a log. Engines are sent archives:
// pull_test.go is about pulls.
func options(t *testing.T) (*Options, *logged) {
	t.Helper()
	log := &logged{}
	return &Options{NoPull: true, LockDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))}, log
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// asked are the requests of an engine, "METHOD PATH".
func asked(engine *enginetest.Engine) (requests []string) {
	for _, r := range engine.Requests() {
		requests = append(requests, fmt.Sprintf("%s %s", r.Method, r.Path))
	}
	return requests
}

// archiveSize is how large the archive is without some layers.
func archiveSize(t *testing.T, file *tarball.Tarball, without ...int) int64 {
	t.Helper()
	omit := map[v1.Hash]bool{}
	for _, i := range without {
		omit[file.Image.Layers()[i].Digest] = true
	}
	archive, err := file.Archive(func(h v1.Hash) bool { return omit[h] })
	require.NoError(t, err)
	return archive.Size()
}

// requireFiles verifies that the image under a reference has the files of these
// layers, and no other.
func requireFiles(t *testing.T, engine *enginetest.Engine, ref string, layers ...layer) {
	t.Helper()
	files, err := engine.Files(ref)
	require.NoError(t, err)
	want := map[string]bool{}
	for _, l := range layers {
		require.Equal(t, l.name+"\n", files["opt/"+l.name+"/name"])
		require.Len(t, files["opt/"+l.name+"/data"], l.size)
		want[l.name] = true
	}
	require.Len(t, files, 2*len(want))
}
