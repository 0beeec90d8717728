package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Requests to a directory of 1,000 tarballs that stays as it is, and to one in which a
// file comes or goes before each of them.
func BenchmarkManifest(b *testing.B) {
	path := b.TempDir()
	dir, err := cache.Open(path, nil)
	require.NoError(b, err)
	t := &testing.T{}
	img, source := makeImage(t, "a")
	manifest, err := img.RawManifest()
	require.NoError(b, err)
	config, err := img.RawConfigFile()
	require.NoError(b, err)
	for i := range 1000 {
		image, err := tarball.NewImage(fmt.Sprintf("registry.test/team/image:v%d", i), manifest, config)
		require.NoError(b, err)
		require.NoError(b, cache.WriteTarball(b.Context(), filepath.Join(path, fmt.Sprintf("image%d_main.tar", i)), image, source, nil))
	}
	h := New(dir, nil)
	ask := func(b *testing.B) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/v2/registry.test/team/image/manifests/v500", nil))
		require.Equal(b, http.StatusOK, w.Code)
	}
	cpu := func() int64 {
		var used unix.Rusage
		require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &used))
		return used.Utime.Nano() + used.Stime.Nano()
	}
	report := func(b *testing.B, before int64) {
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	}
	ask(b) // which reads them all
	b.Run("same", func(b *testing.B) {
		defer report(b, cpu())
		h.server.catalog.(*dirCatalog).settle()
		for b.Loop() {
			ask(b)
		}
	})
	b.Run("changing", func(b *testing.B) {
		defer report(b, cpu())
		other := filepath.Join(path, "other.tar")
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				require.NoError(b, os.Link(filepath.Join(path, "image0_main.tar"), other))
			} else {
				require.NoError(b, os.Remove(other))
			}
			ask(b)
		}
	})
}
