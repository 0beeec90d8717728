package interop

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
)

// ownEngines are engines by their daemons, which a test may do anything to.
var ownEngines = map[string]struct {
	daemon  *daemon
	connect func(t *testing.T, d *daemon) engine
	pulled  bool
}{
	"docker classic":             {docker, connect, false},
	"podman":                     {podman, connect, false},
	"pull podman":                {podman, connect, true},
	"containerd":                 {containerd, connectContainerd, false},
	"pull containerd":            {containerd, connectContainerd, true},
	"new docker classic":         {newDockerClassic, connect, false},
	"new docker containerd":      {newDockerContainerd, connect, false},
	"pull new docker containerd": {newDockerContainerd, connect, true},
}

// onOwnEngines runs a test on a new engine of each kind.
func onOwnEngines(t *testing.T, disk string, test func(t *testing.T, d *daemon, e engine)) {
	for name, own := range ownEngines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := own.daemon.own(t, disk)
			e := own.connect(t, d)
			e.pulled = own.pulled
			test(t, d, e)
		})
	}
}

// requireStill verifies that the image before has its reference, and can be used.
func requireStill(t *testing.T, e engine, s *store, before *tarball.Tarball) {
	t.Helper()
	requireLoad(t, e, s, before, loader.Present)
}

// An engine whose disk is full keeps what it has, and takes the next image when there is
// room again.
func TestLoadOnAFullDisk(t *testing.T) {
	onOwnEngines(t, "size=64m", func(t *testing.T, d *daemon, e engine) {
		s := newStore(t)
		before := s.stock("before_main.tar", "team/image:a-1", "zero")
		requireLoad(t, e, s, before, loader.Loaded)
		next := s.stock("a_main.tar", "team/image:a-1", "zero", "one", "two", "three", "four", "five", "six", "seven")
		ballast := filepath.Join(d.dir, "ballast")
		for _, left := range []int64{5 << 20, 12 << 20} { // too little for the layers; for them unpacked
			var disk unix.Statfs_t
			require.NoError(t, unix.Statfs(d.dir, &disk))
			require.NoError(t, os.WriteFile(ballast, make([]byte, int64(disk.Bavail)*disk.Bsize-left), 0o600))
			result, err := loader.Load(t.Context(), e, next, s.options())
			if err == nil {
				t.Logf("with %d bytes of space it is loaded: %+v", left, result)
				require.NoError(t, os.Remove(ballast))
				return
			}
			t.Log(err)
			require.NoError(t, os.Remove(ballast))
			requireStill(t, e, s, before)
		}
		requireLoad(t, e, s, next, loader.Loaded, loader.Delta)
	})
}

// An engine that is killed while it loads has the former image when it runs again.
func TestLoadIntoAKilledEngine(t *testing.T) {
	onOwnEngines(t, "", func(t *testing.T, d *daemon, e engine) {
		s := newStore(t)
		before := s.stock("before_main.tar", "team/image:a-1", "zero")
		requireLoad(t, e, s, before, loader.Loaded)
		var kill func()
		var next *tarball.Tarball
		for when, o := range map[string]*loader.Options{
			"half is sent": {Progress: stopAt(0.5, func() { kill() })},
			"all is sent":  {Unpacking: func(tarball.Progress) { kill() }},
		} {
			kill = sync.OnceFunc(func() { d.kill(t) })
			next = s.stock("a_main.tar", "team/image:a-1", "zero", "one"+when[:3], "two"+when[:3], "three"+when[:3])
			o.LockDir, o.Logger = s.options().LockDir, s.options().Logger
			_, err := loader.Load(t.Context(), e, next, o)
			t.Log(when, err)
			require.Error(t, err, when)
			d.restart(t)
			requireStill(t, e, s, before)
		}
		requireLoad(t, e, s, next, loader.Loaded, loader.Delta)
	})
}
