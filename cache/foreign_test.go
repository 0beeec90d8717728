package cache

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// archive is a tar archive with entries of these names.
func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: 2, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Size, h.Typeflag = 0, tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte("{}")[:h.Size])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return raw.Bytes()
}

// What other programs saved goes when that is asked for, and nothing else that is no
// tarball: not one of this cache that is damaged, in any byte, nor what is in use.
func TestPruneForeign(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	foreign := map[string][]byte{
		"docker29_main.tar":   archive(t, "blobs/", "blobs/sha256/", "blobs/sha256/"+hex, "index.json", "manifest.json", "oci-layout", "repositories"),
		"docker20_main.tar":   archive(t, hex+"/", hex+"/VERSION", hex+"/json", hex+"/layer.tar", hex+".json", "manifest.json", "repositories"),
		"podman_main.tar":     archive(t, hex+".tar", hex+".json", "manifest.json"),
		"crane_main.tar":      archive(t, "sha256:"+hex, hex+".tar.gz", "manifest.json"),
		"containerd_main.tar": archive(t, "blobs/sha256/"+hex, "index.json", "manifest.json", "oci-layout"),
		"dot_main.tar":        archive(t, "./blobs/", "./index.json"),
		"cut_main.tar":        archive(t, "blobs/", "blobs/sha256/"+hex, "index.json")[:1536],
		"gzip_main.tar":       cachetest.Gzip(archive(t, hex+".json", "manifest.json")),
	}
	dir, _, _, path := stocked(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	other := map[string][]byte{
		"empty_main.tar":   nil,
		"zeros_main.tar":   make([]byte, len(whole)),
		"noise_main.tar":   cachetest.Noise(1, 5000),
		"short_main.tar":   whole[:len(whole)-1],
		"head_main.tar":    whole[:512],
		"sources_main.tar": archive(t, "src/", "src/main.go", "manifest.json"),
		"oci_main.tar":     archive(t, "oci-layout", "index.json", "blobs/"),
		"zip_main.tar":     cachetest.Gzip(archive(t, "src/", "src/main.go")),
		"name_main.tar":    whole,
	}
	for _, i := range []int{0, 3, 100, 148, 156, 257, 600, 1024, 3000} { // names, sums, contents
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x01
		other["damaged"+string(rune('a'+i%26))+"_main.tar"] = damaged
	}
	at := func(name string) string { return filepath.Join(dir.Path(), name) }
	for name, content := range other {
		require.NoError(t, os.WriteFile(at(name), content, 0o644))
	}
	for name, content := range foreign {
		require.NoError(t, os.WriteFile(at(name), content, 0o644))
	}
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	for _, e := range entries {
		_, want := foreign[e.Name]
		assert.Equal(t, want, e.Foreign, e.Name)
		if want {
			assert.ErrorIs(t, e.Err, tarball.ErrNotTarball)
		}
	}

	r, err := dir.Prune(t.Context(), &PruneOptions{MaxBytes: 1 << 40})
	require.NoError(t, err)
	assert.Empty(t, r.Removed, "unasked")

	// Another program reads one, or still writes it; a writer of this cache is about to
	// replace one; one was used.
	reader, err := os.Open(at("crane_main.tar"))
	require.NoError(t, err)
	defer reader.Close()
	writer, err := os.OpenFile(at("cut_main.tar"), os.O_WRONLY, 0)
	require.NoError(t, err)
	defer writer.Close()
	lock, _, err := dir.lock(t.Context(), "dot_main.tar", tarball.Run{}, false)
	require.NoError(t, err)
	defer lock.unlock()
	require.NoError(t, dir.Touch(t.Context(), "podman_main.tar"))
	inUse := []string{"crane_main.tar", "cut_main.tar", "dot_main.tar"}
	for _, dryRun := range []bool{true, false} {
		r, err := dir.Prune(t.Context(), &PruneOptions{Foreign: true, DryRun: dryRun})
		require.NoError(t, err)
		var removed, kept []string
		var freed int64
		for _, p := range r.Removed {
			assert.Equal(t, PruneForeign, p.Why)
			removed = append(removed, p.Entry.Name)
			freed += p.Entry.Allocated
		}
		for _, p := range r.Kept {
			assert.Equal(t, KeepInUse, p.Kept)
			kept = append(kept, p.Entry.Name)
		}
		assert.Equal(t, []string{"containerd_main.tar", "docker20_main.tar", "docker29_main.tar", "gzip_main.tar", "podman_main.tar"}, removed)
		assert.Equal(t, inUse, kept)
		assert.Equal(t, freed, r.Freed)
		assert.Equal(t, 1, r.Left)
	}
	for _, name := range names(t, dir.Path()) {
		_, stays := other[name]
		assert.True(t, stays || strings.HasPrefix(name, ".dot_") || name == inUse[0] || name == inUse[1] || name == inUse[2], name)
	}
	for name, content := range other {
		have, err := os.ReadFile(at(name))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content, have), name)
	}
}

// Where writers on other hosts are not seen, what was just written may be being written.
func TestPruneForeignOnANetwork(t *testing.T) {
	dir := openTestDir(t)
	dir.network = true
	path := filepath.Join(dir.Path(), "a_main.tar")
	require.NoError(t, os.WriteFile(path, archive(t, "blobs/"), 0o644))
	now := time.Now()
	for age, removed := range map[time.Duration]int{-time.Hour: 0, beingWrittenFor - time.Second: 0, beingWrittenFor: 1} {
		dir.now = func() time.Time { return now }
		require.NoError(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
		r, err := dir.Prune(t.Context(), &PruneOptions{Foreign: true, DryRun: true})
		require.NoError(t, err)
		assert.Len(t, r.Removed, removed, "%v", age)
	}
}

// A limit that cannot be reached is reported, with how far it is off.
func TestPruneMissesALimit(t *testing.T) {
	names := []string{"a_main.tar", "b_main.tar", "c_main.tar", "d_main.tar"} // four groups
	for name, c := range map[string]struct {
		o          PruneOptions
		count, age int
		over       bool
		inUse      string
	}{
		"a count, all are the newest":     {o: PruneOptions{Count: 1}, count: 3},
		"bytes, all are the newest":       {o: PruneOptions{MaxBytes: 1}, over: true},
		"an age, all are the newest":      {o: PruneOptions{MaxAge: 60 * time.Hour}, age: 2},
		"all":                             {o: PruneOptions{MaxAge: 60 * time.Hour, Count: 2, MaxBytes: 1}, age: 2, count: 2, over: true},
		"one is in use":                   {o: PruneOptions{MaxBytes: 1, RemoveNewest: true}, inUse: "b_main.tar", over: true},
		"an age, one is in use":           {o: PruneOptions{MaxAge: 60 * time.Hour, RemoveNewest: true}, inUse: "b_main.tar", age: 1},
		"another goes in place of one":    {o: PruneOptions{Count: 3, RemoveNewest: true}, inUse: "a_main.tar"},
		"nothing is beyond":               {o: PruneOptions{Count: 4, MaxAge: 24 * 365 * time.Hour, MaxBytes: 1 << 40}},
		"between low water and the limit": {o: PruneOptions{Count: 4, MaxBytes: 1 << 40, LowWater: 1}},
		"no limit":                        {},
		"all may go":                      {o: PruneOptions{MaxBytes: 1, RemoveNewest: true}},
	} {
		for _, dryRun := range []bool{true, false} {
			dir := several(t, names...)
			if c.inUse != "" {
				get(t, dir, c.inUse)
			}
			c.o.DryRun = dryRun
			r, err := dir.Prune(t.Context(), &c.o)
			require.NoError(t, err)
			assert.Equal(t, c.count, r.OverCount, name)
			assert.Equal(t, c.age, r.OverAge, name)
			assert.Equal(t, c.over, r.OverBytes > 0, name)
			if c.over {
				assert.Equal(t, r.LeftBytes-c.o.MaxBytes, r.OverBytes, name)
			}
		}
	}
}
