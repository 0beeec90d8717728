package report

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/examples/internal/jsondoc"
)

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	for want, record := range map[string]any{
		`{"image":"","source":"","tarball":"","digest":"","outcome":"","bytes_total":0,"bytes_downloaded":0,"bytes_reused":0,"bytes_cloned":0,"bytes_copied":0,"bytes_resumed":0,"seconds":0,"error":"","advice":"","platform":""}`: Stocked{},
		`{"image":"","tarball":"","digest":"","outcome":"","bytes_streamed":0,"bytes_total":0,"seconds":0,"error":"","advice":""}`:                                                                                                  Loaded{},
		`{"name":"","reference":"","artifact":"","file":"","run_id":0,"run_attempt":0,"branch":""}`:                                                                                                                                 Output{},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}

func TestJSONDocument(t *testing.T) {
	const document = "../../JSON.md"
	jsondoc.Check(t, document, "docker-cache", Stocked{}, string(cache.Stocked), string(cache.Unchanged), string(cache.Superseded), Failed)
	jsondoc.Check(t, document, "load-image", Loaded{}, string(loader.Present), string(loader.Loaded), string(loader.Delta), Missing, Failed)
	jsondoc.Check(t, document, "merge-artifacts", Output{})
}
