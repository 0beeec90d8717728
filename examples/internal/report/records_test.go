package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/jsondoc"
)

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	for want, record := range map[string]any{
		`{"image":"","source":"","tarball":"","digest":"","outcome":"","bytes_total":0,"bytes_downloaded":0,"bytes_reused":0,"bytes_cloned":0,"bytes_copied":0,"bytes_resumed":0,"seconds":0,"error":"","advice":"","platform":"","sources":[{"repository":"","bytes":0,"bytes_duplicate":0,"bytes_per_second":0,"requests":0,"refused":0,"first_byte_seconds":0,"seconds":0,"connections_mean":0,"connections_most":0}],"phases":{}}`: Stocked{Sources: []Source{{}}},
		`{"image":"","tarball":"","digest":"","outcome":"","bytes_streamed":0,"bytes_total":0,"seconds":0,"error":"","advice":"","note":"","phases":{}}`: Loaded{},
		`{"name":"","reference":"","artifact":"","file":"","run_id":0,"run_attempt":0,"branch":""}`:                                                      Output{},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}

func TestJSONDocument(t *testing.T) {
	const document = "../../JSON.md"
	jsondoc.Check(t, document, "docker-cache", Stocked{}, string(cache.Stocked), string(cache.Unchanged), string(cache.Superseded), Failed)
	jsondoc.Check(t, document, "keep-loaded", Loaded{}, string(loader.Present), string(loader.Loaded), string(loader.Delta), Failed)
	jsondoc.Check(t, document, "load-image", Loaded{}, string(loader.Present), string(loader.Loaded), string(loader.Delta), Missing, Failed)
	jsondoc.Check(t, document, "merge-artifacts", Output{})
	jsondoc.Check(t, document, "engine-root", Root{}, string(dataroot.Built), string(dataroot.Refreshed), string(dataroot.Unchanged), Listed, Verified, Removed, WouldRemove, Cloned, Mounted, string(dataroot.Reflink), string(dataroot.Copy))
}

// A run that was resumed says what it kept, in each of its forms.
func TestResumed(t *testing.T) {
	r := &Stocked{Source: "ghcr.io/x:t"}
	r.Put(&cache.Result{Outcome: cache.Stocked, Path: "dir/x_main.tar", Total: 100 << 20, Downloaded: 30 << 20, Reused: 10 << 20, Copied: 10 << 20, Resumed: 60 << 20})
	assert.Equal(t, "stocked    x_main.tar  100 MiB from ghcr.io/x:t in 0.0 s, of that 10 MiB reused (0 B cloned, 10 MiB copied), 60 MiB kept from an earlier attempt", r.Text())
	assert.EqualValues(t, 60<<20, r.BytesResumed)
	file := filepath.Join(t.TempDir(), "summary")
	Summarize(&cli.Output{}, []*Stocked{r, {Image: "bad", Outcome: Failed, Error: "not found", Advice: "check it"}}, file)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Contains(t, string(text), "### Container images: 1 stocked, 1 failed\n")
	assert.Contains(t, string(text), "| 30 MiB | 10 MiB | 60 MiB |")
	assert.Contains(t, string(text), "- bad: not found\n  - What to do: check it\n")
}
