package interop

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
)

// writers are engines that save images in a format of their own.
var writers = map[string]func(t *testing.T) engine{
	"docker 20.10":          func(t *testing.T) engine { return connect(t, docker) },
	"docker 29":             func(t *testing.T) engine { return connect(t, newDockerClassic) },
	"docker 29, containerd": func(t *testing.T) engine { return connect(t, newDockerContainerd) },
	"podman":                func(t *testing.T) engine { return connect(t, podman) },
}

// savedBy returns the file that docker save of an engine writes, and the layers' files that
// the image has.
func savedBy(t *testing.T, writer string) (path, ref string, files map[string]string) {
	t.Helper()
	var content []byte
	t.Run("saved by "+writer, func(t *testing.T) {
		e := writers[writer](t)
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two", "one")
		_, err := loader.Load(t.Context(), e, stocked, s.options())
		require.NoError(t, err)
		ref = stocked.Image.Reference()
		files = layerFiles(e.files(t, ref))
		newAPI(t, e.address).call(t, http.MethodGet, "/images/"+ref+"/get", nil, func(r io.Reader) {
			content, err = io.ReadAll(r)
			require.NoError(t, err)
		})
	})
	if content == nil {
		t.SkipNow() // the engine is missing
	}
	path = filepath.Join(t.TempDir(), "a_main.tar")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path, ref, files
}

// layerFiles are those of the layers, without what a container has besides.
func layerFiles(files map[string]string) map[string]string {
	maps.DeleteFunc(files, func(name, _ string) bool { return !strings.HasPrefix(name, "opt/") })
	return files
}

// What each engine's docker save writes, each engine loads, compressed too; and load-image
// finds it under a tarball's name.
func TestLoadSaved(t *testing.T) {
	for writer := range writers {
		t.Run(writer, func(t *testing.T) {
			path, ref, files := savedBy(t, writer)
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			var zipped bytes.Buffer
			z, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
			require.NoError(t, err)
			_, err = z.Write(content)
			require.NoError(t, err)
			require.NoError(t, z.Close())
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a_main.tar"), content, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "zip_main.tar"), zipped.Bytes(), 0o600))
			program := buildExample(t, "load-image")
			onEngines(t, func(t *testing.T, e engine) {
				s := newStore(t)
				if writer == "docker 20.10" { // by the program, and what is damaged
					out, err := exec.Command(program, "-json", "-quiet", "-host", e.address, "-lock-dir", s.options().LockDir, "-dir", dir, ref).Output()
					require.NoError(t, err)
					var r struct{ Outcome, Note string }
					require.NoError(t, json.Unmarshal(out, &r))
					assert.Equal(t, "loaded", r.Outcome)
					assert.Contains(t, r.Note, "written by docker save")
					assert.True(t, maps.Equal(files, layerFiles(e.files(t, ref))))
					e.remove(t, ref)
					before := s.stock("before_main.tar", "team/image:a-1", "zero")
					requireLoad(t, e, s, before, loader.Loaded)
					for _, damage := range []func(path string) error{
						func(path string) error { return os.WriteFile(path, content[:len(content)*2/3], 0o600) },
						func(path string) error {
							damaged := bytes.Clone(content)
							damaged[len(damaged)/3] ^= 1
							return os.WriteFile(path, damaged, 0o600)
						},
					} {
						bad := filepath.Join(t.TempDir(), "a_main.tar")
						require.NoError(t, damage(bad))
						out, err := exec.Command(program, "-quiet", "-host", e.address, "-lock-dir", s.options().LockDir, "-dir", filepath.Dir(bad), ref).CombinedOutput()
						require.Error(t, err)
						t.Logf("%s", out)
						requireLoad(t, e, s, before, loader.Present)
					}
					e.remove(t, ref)
				}
				for _, name := range []string{"a_main.tar", "zip_main.tar"} {
					saved, err := tarball.OpenSaved(filepath.Join(dir, name), ref)
					require.NoError(t, err)
					defer saved.Close()
					o := s.options()
					o.Whole, o.NoPull = true, true
					result, err := loader.Load(t.Context(), e, saved, o)
					require.NoError(t, err)
					assert.Equal(t, loader.Loaded, result.Outcome)
					assert.True(t, maps.Equal(files, layerFiles(e.files(t, ref))))
					e.remove(t, ref)
				}
			})
		})
	}
}
