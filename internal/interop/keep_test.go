package interop

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/loader/keep"
)

// keeper keeps one version of each image of a store in an engine, and pins it where it can be.
func keeper(t *testing.T, s *store, address string) *keep.Keeper {
	t.Helper()
	k, err := keep.New(keep.Directory(s.dir), func(ctx context.Context) (loader.Engine, error) {
		return loader.Open(ctx, loader.Host{Address: address})
	}, &keep.Options{Versions: 1, Pin: true, State: filepath.Join(t.TempDir(), "state.json"), Load: *s.options()})
	require.NoError(t, err)
	return k
}

// An engine is kept up to date, and nothing else grows in it.
func TestKeep(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		if strings.HasSuffix(t.Name(), "collecting_garbage") {
			return // TestRemove is for that one
		}
		s := newStore(t)
		k := keeper(t, s, e.address)
		first := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		require.NoError(t, k.Once(t.Context()))
		requireSameFiles(t, e, first)
		before, _, err := e.Find(t.Context(), first.Image.Reference())
		require.NoError(t, err)

		// The reference moves: the image that had it has no name any more, and goes.
		second := s.stock("a_main.tar", "team/image:a-1", "one", "three")
		require.NoError(t, k.Once(t.Context()))
		requireSameFiles(t, e, second)
		left, _, err := e.Find(t.Context(), before.String())
		require.NoError(t, err)
		assert.Zero(t, left)

		// Another reference: the older one goes when no container uses it any more.
		release := e.use(t, second.Image.Reference())
		third := s.stock("a_main.tar", "team/image:a-2", "one", "four")
		require.NoError(t, k.Once(t.Context()))
		requireNamed(t, e, third.Image.Reference(), second.Image.Reference())
		release()
		fourth := s.stock("a_main.tar", "team/image:a-3", "one", "five")
		require.NoError(t, k.Once(t.Context()))
		requireNamed(t, e, fourth.Image.Reference())
		for _, gone := range []string{"a-1", "a-2"} {
			id, _, err := e.Find(t.Context(), "registry.example/team/image:"+gone)
			require.NoError(t, err)
			assert.Zero(t, id, gone)
		}
		assert.Zero(t, e.containers(t))
		if socket, ok := strings.CutPrefix(e.address, "containerd://"); ok {
			assert.Contains(t, run(t, "ctr", "--address", socket, "images", "ls", "name=="+fourth.Image.Reference()), "io.cri-containerd.pinned=pinned")
		}
	})
}

// requireNamed verifies that these references name images that can be used.
func requireNamed(t *testing.T, e engine, references ...string) {
	t.Helper()
	for _, reference := range references {
		id, state, err := e.Find(t.Context(), reference)
		require.NoError(t, err)
		require.NotZero(t, id, reference)
		require.NotEqual(t, loader.Incomplete, state, reference)
	}
}

// In the namespace of Kubernetes, where a plugin gives each image a second name.
func TestKeepInKubernetes(t *testing.T) {
	address := criContainerd.use(t)
	t.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	client := func(args ...string) string {
		return run(t, "ctr", append([]string{"--address", strings.TrimPrefix(address, "containerd://")}, args...)...)
	}
	s := newStore(t)
	k := keeper(t, s, address)
	for _, tag := range []string{"a-1", "a-2"} {
		stocked := s.stock("a_main.tar", "team/image:"+tag, "one", tag)
		require.NoError(t, k.Once(t.Context()))
		config := stocked.Image.ConfigDigest().String()
		require.Eventually(t, func() bool { return strings.Contains(client("images", "ls", "-q"), config) }, time.Minute, 50*time.Millisecond, "the plugin has named it")
	}
	names := strings.Fields(client("images", "ls", "-q"))
	assert.Len(t, names, 2, "%q", names)
	assert.Contains(t, names, "registry.example/team/image:a-2")
	client(append([]string{"images", "rm", "--sync"}, names...)...)
}
