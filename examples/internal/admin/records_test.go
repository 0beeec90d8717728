package admin

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/examples/internal/jsondoc"
	"github.com/dockercache/dockercache/examples/internal/report"
)

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	for want, record := range map[string]any{
		`{"name":"","tarball":"","digest":"","reference":"","source":"","branch":"","run_id":0,"run":0,"run_attempt":0,"bytes_total":0,"bytes":0,"bytes_allocated":0,"bytes_shared":0,"last_used":"","error":"","advice":"","kind":"","platform":""}`: listed{},
		`{"name":"","tarball":"","digest":"","outcome":"","damaged":[],"bytes_total":0,"bytes":0,"bytes_downloaded":0,"error":"","advice":"","sources":[]}`:                                                                                           verified{Damaged: []string{}, Sources: []report.Source{}},
		`{"name":"","kind":"","outcome":"","action":"","dry_run":false,"why":"","kept":"","bytes_allocated":0,"bytes":0,"last_used":""}`:                                                                                                              pruned{},
		`{"tarball":"","file":"","digest":"","reference":"","source":"","branch":"","run_id":0,"run":0,"run_attempt":0,"platform":"","created":"","config":"","bytes_total":0,"bytes":0,"layers":[{"digest":"","media_type":"","bytes":0,"offset":0}]}`: described{
			Layers: []describedLayer{{}}},
		`{"by":"","name":"","records":0,"first":"","last":"","loads":0,"hits":0,"bytes_downloaded":0,"bytes_reused":0,"bytes_resumed":0,"bytes_streamed":0,"compared":0,"unknown":0,"seconds":0,"pull_seconds_least":0,"pull_seconds_most":0,"saved_seconds_least":0,"saved_seconds_most":0,"rates_of":"","ways":[{"kind":"","outcome":"","count":0,"seconds_median":0,"seconds_mean":0}],"origins":[{"name":"","bytes":0}],"slowest":[{"kind":"","phase":"","count":0,"seconds":0,"seconds_median":0}]}`: reported{
			Ways: []reportedWay{{}}, Origins: []reportedOrigin{{}}, Slowest: []reportedPhase{{}}},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}

func TestJSONDocument(t *testing.T) {
	const document = "../../JSON.md"
	jsondoc.Check(t, document, "cache-admin list", listed{}, ownKind, foreignKind, unreadableKind)
	jsondoc.Check(t, document, "cache-admin verify", verified{}, intact, damaged, repaired, missing)
	jsondoc.Check(t, document, "cache-admin prune", pruned{}, removed, kept, ownKind, templateKind, foreignKind, string(cache.PruneForeign), string(cache.PruneAge), string(cache.PruneCount), string(cache.PruneBytes),
		string(cache.PartialLeftover), string(cache.JournalLeftover), string(cache.PreviousLeftover), string(cache.MarkLeftover), string(cache.VerifiedLeftover),
		string(cache.LockLeftover), string(cache.WantedLeftover), string(cache.TemporaryLeftover))
	jsondoc.Check(t, document, "cache-admin info", described{})
	jsondoc.Check(t, document, "cache-admin report", reported{}, "all", "image", "host", "day", string(history.Stock), string(history.Load), string(history.Clone), string(history.Fill))
}
