package report

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	for want, record := range map[string]any{
		`{"image":"","source":"","tarball":"","digest":"","outcome":"","bytes_total":0,"bytes_downloaded":0,"bytes_reused":0,"bytes_cloned":0,"bytes_copied":0,"seconds":0,"error":""}`: Stocked{},
		`{"image":"","tarball":"","outcome":"","bytes_streamed":0,"bytes_total":0,"seconds":0,"error":"","note":""}`:                                                                    Loaded{},
		`{"name":"","reference":"","artifact":"","file":"","run_id":0,"branch":""}`:                                                                                                     Output{},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}
