package interop

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
)

// engines are those that images are loaded into.
var engines = []struct {
	name    string
	connect func(t *testing.T) engine
}{
	{"docker classic", func(t *testing.T) engine { return connect(t, docker) }},
	{"podman", func(t *testing.T) engine { return connect(t, podman) }},
	{"containerd", func(t *testing.T) engine { return connectContainerd(t, containerd) }},
	{"containerd collecting garbage", func(t *testing.T) engine { return connectContainerd(t, eagerContainerd) }},
	{"new docker classic", func(t *testing.T) engine { return connect(t, newDockerClassic) }},
	{"new docker containerd", func(t *testing.T) engine { return connect(t, newDockerContainerd) }},
}

// onEngines runs a test on each engine that is there. All are sent archives.
func onEngines(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e.connect(t))
		})
	}
}

// onPullers runs a test on each engine that would rather pull, and does.
func onPullers(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		if strings.HasSuffix(e.name, "classic") {
			continue
		}
		t.Run("pull "+e.name, func(t *testing.T) {
			t.Parallel()
			engine := e.connect(t)
			engine.pulled, engine.byBlob = true, true // podman too knows blobs that it has pulled
			test(t, engine)
		})
	}
}

// onAll runs a test on each engine by each road.
func onAll(t *testing.T, test func(t *testing.T, e engine)) {
	onEngines(t, test)
	onPullers(t, test)
}

// engine is one that runs.
type engine struct {
	loader.Engine
	pulled     bool // else it is sent archives
	address    string
	byBlob     bool   // it knows layers by the digests of their blobs
	keepsBlobs bool   // that it was sent whole, also when the rest never came
	socket     string // that the loader connects to
	// What the loader does not do:
	files      func(t *testing.T, reference string) map[string]string // of an image
	remove     func(t *testing.T, reference string)
	containers func(t *testing.T) int                                // how many there are
	use        func(t *testing.T, reference string) (release func()) // by a container that is not started
}

// afterABreak is what a load may be that comes after one which was interrupted: what
// a pull has fetched by then may be there, or not.
func (e engine) afterABreak() []loader.Outcome {
	switch {
	case e.pulled:
		return []loader.Outcome{loader.Loaded, loader.Delta}
	case e.keepsBlobs:
		return []loader.Outcome{loader.Delta}
	}
	return []loader.Outcome{loader.Loaded}
}

// Pulls makes an engine a [loader.Puller].
func (e engine) Pulls(ctx context.Context) bool {
	return e.pulled && e.Engine.(loader.Puller).Pulls(ctx)
}

// VerifiesLayers makes an engine a [loader.LayerVerifier].
func (e engine) VerifiesLayers(ctx context.Context) bool {
	verifier, ok := e.Engine.(loader.LayerVerifier)
	return ok && verifier.VerifiesLayers(ctx)
}

// NamesEarly makes an engine a [loader.EarlyNamer].
func (e engine) NamesEarly(ctx context.Context) bool {
	early, ok := e.Engine.(loader.EarlyNamer)
	return ok && early.NamesEarly(ctx)
}

// ReadsZstd makes an engine a [loader.ZstdReader].
func (e engine) ReadsZstd(ctx context.Context, mediaType types.MediaType) error {
	if reader, ok := e.Engine.(loader.ZstdReader); ok {
		return reader.ReadsZstd(ctx, mediaType)
	}
	return nil
}

// Reporting makes an engine a [loader.Reporter].
func (e engine) Reporting(unpacked func(int64)) loader.Engine {
	if reporter, ok := e.Engine.(loader.Reporter); ok {
		return reporter.Reporting(unpacked)
	}
	return e
}

func (e engine) Pull(ctx context.Context, reference string) error {
	return e.Engine.(loader.Puller).Pull(ctx, reference)
}

// connect connects to a daemon that speaks Docker's API. It has no images, and none when
// the test has ended.
func connect(t *testing.T, d *daemon) engine {
	t.Helper()
	address := d.use(t)
	docker, err := loader.Open(t.Context(), loader.Host{Address: address})
	require.NoError(t, err)
	api := newAPI(t, address)
	t.Cleanup(func() { api.removeAll(t) })
	says, err := docker.(loader.Describer).Describe(t.Context())
	require.NoError(t, err)
	t.Log(says)
	return engine{
		Engine: docker, address: address, byBlob: strings.Contains(says, "containerd store"), socket: strings.TrimPrefix(address, "unix://"),
		files: api.files, remove: api.remove, containers: api.containers, use: api.use,
	}
}

// connectContainerd is [connect] for containerd, through ctr.
func connectContainerd(t *testing.T, d *daemon) engine {
	t.Helper()
	address := d.use(t)
	connected, err := loader.Open(t.Context(), loader.Host{Address: address})
	require.NoError(t, err)
	socket := strings.TrimPrefix(address, "containerd://")
	client := func(t *testing.T, args ...string) string {
		return run(t, "ctr", append([]string{"--address", socket}, args...)...)
	}
	t.Cleanup(func() {
		if names := strings.Fields(client(t, "images", "ls", "-q")); len(names) > 0 {
			client(t, append([]string{"images", "rm", "--sync"}, names...)...)
		}
	})
	return engine{
		Engine: connected, address: address, byBlob: true, keepsBlobs: true, socket: socket,
		files: func(t *testing.T, reference string) map[string]string {
			at := t.TempDir()
			client(t, "images", "mount", reference, at)
			defer client(t, "images", "unmount", "--rm", at)
			found := map[string]string{}
			readDir(t, at, found)
			return found
		},
		remove:     func(t *testing.T, reference string) { client(t, "images", "rm", "--sync", reference) },
		containers: func(t *testing.T) int { return len(strings.Fields(client(t, "containers", "ls", "-q"))) },
		use: func(t *testing.T, reference string) func() {
			client(t, "containers", "create", reference, "user", "/x")
			return func() { client(t, "containers", "rm", "user") }
		},
	}
}
