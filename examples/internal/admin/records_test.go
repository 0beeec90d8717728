package admin

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	for want, record := range map[string]any{
		`{"name":"","digest":"","reference":"","source":"","branch":"","run":0,"run_attempt":0,"bytes":0,"bytes_allocated":0,"bytes_shared":0,"last_used":"","error":""}`: listed{},
		`{"name":"","digest":"","outcome":"","damaged":[],"bytes":0,"bytes_downloaded":0,"error":""}`:                                                                     verified{Damaged: []string{}},
		`{"name":"","kind":"","action":"","dry_run":false,"why":"","kept":"","bytes":0,"last_used":""}`:                                                                   pruned{},
		`{"file":"","digest":"","reference":"","source":"","branch":"","run":0,"run_attempt":0,"platform":"","created":"","config":"","bytes":0,"layers":[{"digest":"","media_type":"","bytes":0,"offset":0}]}`: described{
			Layers: []describedLayer{{}}},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}
