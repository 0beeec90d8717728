package loader

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
)

// From when all is sent an engine unpacks. Docker's classic store reports how far it is.
func TestLoadReportsUnpacking(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		for _, pull := range []bool{false, true} {
			engine, docker, file := prepared(t, o)
			opts, _ := options(t)
			opts.NoPull = !pull
			var mu sync.Mutex
			var phases []tarball.Phase
			var all []tarball.Progress
			opts.Progress = func(p tarball.Progress) {
				mu.Lock()
				defer mu.Unlock()
				phases = append(phases, p.Phase)
			}
			opts.Unpacking = func(p tarball.Progress) {
				mu.Lock()
				defer mu.Unlock()
				phases = append(phases, p.Phase)
				all = append(all, p)
			}
			_, err := Load(t.Context(), docker, file, opts)
			require.NoError(t, err)
			require.Equal(t, pull && o.Kind != enginetest.Classic, engine.Pulls() > 0)
			require.NotEmpty(t, all)
			assert.Equal(t, tarball.Unpacking, phases[len(phases)-1])
			assert.Equal(t, tarball.Progress{Phase: tarball.Unpacking}, all[0], "nothing is known yet")
			if o.Kind == enginetest.Classic {
				size := file.Image.Layers()[2].Size // the only one that was sent
				assert.Equal(t, []tarball.Progress{
					{Phase: tarball.Unpacking, Done: size / 2, Total: size}, {Phase: tarball.Unpacking, Done: size, Total: size},
				}, all[1:])
				continue
			}
			for _, p := range all {
				assert.Equal(t, tarball.Progress{Phase: tarball.Unpacking}, p)
			}
		}
	})
}

// What a layer's progress says is added up, whatever else is in the lines.
func TestReadUnpacking(t *testing.T) {
	lines := []string{
		`{"status":"Loading layer","id":"a","progressDetail":{"current":5,"total":10}}`,
		`{"status":"Loading layer","id":"a","progressDetail":{"current":10,"total":10}}`,
		`{"status":"Loading layer","id":"b","progressDetail":{"current":1,"total":3}}`,
		`{"status":"Loading layer","id":"a","progressDetail":{"current":7,"total":10}}`, // never back
		`{"status":"Extracting","id":"c","progressDetail":{"current":4,"units":"s"}}`,   // seconds
		`{"status":"Loading layer","progressDetail":"nonsense"}`,
		`nonsense`,
		`{"stream":"Loaded image: x"}`,
	}
	var got []int64
	require.NoError(t, readLoadStream(strings.NewReader(strings.Join(lines, "\r\n")), func(done int64) { got = append(got, done) }))
	assert.Equal(t, []int64{5, 10, 11}, got)
}
