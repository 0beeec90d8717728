package history

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/timing"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func stock() Record {
	return Record{
		Time: noon, Host: "runner-1", Program: "docker-cache", Kind: Stock, Outcome: "stocked", Image: "registry.example.com/team/image:tag",
		Tarball: "image_main.tar", Digest: "sha256:" + strings.Repeat("0", 64), BytesTotal: 3000, BytesReused: 500, BytesResumed: 500,
		Origins: []Origin{{"registry.example.com/team/image", 2000, 20, 4}}, Seconds: 25,
		Phases: map[timing.Phase]float64{timing.Resolve: 1, timing.Fetch: 20, timing.Publish: 4},
	}
}

// The bytes are a format: other versions and other programs read them.
func TestLine(t *testing.T) {
	line, err := stock().line(noon)
	require.NoError(t, err)
	assert.Equal(t, `{"v":1,"time":"2026-11-26T12:00:00Z","host":"runner-1","program":"docker-cache","kind":"stock","outcome":"stocked",`+
		`"image":"registry.example.com/team/image:tag","tarball":"image_main.tar","digest":"sha256:`+strings.Repeat("0", 64)+`","engine":"",`+
		`"bytes_total":3000,"bytes_reused":500,"bytes_resumed":500,"bytes_streamed":0,"origins":[{"name":"registry.example.com/team/image","bytes":2000,"seconds":20,"connections":4}],`+
		`"seconds":25,"phases":{"fetch":20,"publish":4,"resolve":1},"error":""}`+"\n", string(line))
	r, err := parse(line, noon)
	require.NoError(t, err)
	want := stock()
	want.Version = 1
	assert.Equal(t, want, r)
}

// Whatever a record has, its line can be read again, and is short.
func TestLineIsCut(t *testing.T) {
	for _, text := range []string{strings.Repeat("\x00", 1<<16), strings.Repeat("界", 1<<14), strings.Repeat("\xff", 1<<14), strings.Repeat("<", 1<<14), "two\nlines"} {
		r := stock()
		for _, s := range append(r.texts(), &r.Error) {
			*s = text
		}
		r.Phases = map[timing.Phase]float64{"fetch": math.NaN(), "hash": -1, "copy": math.Inf(1), timing.Phase(text): 1, "": 1}
		r.Origins = nil
		for i := range 100 {
			r.Origins = append(r.Origins, Origin{text, int64(i), math.Inf(-1), math.NaN()})
		}
		r.BytesTotal, r.BytesReused, r.Seconds = -1, math.MaxInt64, math.NaN()
		line, err := r.line(noon)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(line), maxLine)
		assert.Equal(t, 1, strings.Count(string(line), "\n"))
		back, err := parse(line, noon)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(back.Error), 3*maxError, "a byte that is none of UTF-8 is three when it is read")
		assert.True(t, utf8.ValidString(back.Error))
		assert.Equal(t, map[timing.Phase]float64{"fetch": 0, "hash": 0, "copy": 1e9}, back.Phases)
		assert.Zero(t, back.BytesTotal)
		if len(back.Origins) > 0 {
			assert.EqualValues(t, 99, back.Origins[0].Bytes, "the largest are kept")
		}
	}
	_, err := Record{Kind: "other", Outcome: "stocked"}.line(noon)
	assert.Error(t, err)
	_, err = Record{Kind: Stock, Outcome: "not a word"}.line(noon)
	assert.Error(t, err)
	r, err := Record{Kind: Load, Outcome: Missing}.line(noon)
	require.NoError(t, err)
	assert.Contains(t, string(r), `"time":"2026-11-26T12:00:00Z"`)
	assert.NotContains(t, string(r), `"host":""`)
}

// with returns the line of a record with another value of a field.
func with(t *testing.T, field string, value any) string {
	t.Helper()
	line, err := stock().line(noon)
	require.NoError(t, err)
	var all map[string]any
	require.NoError(t, json.Unmarshal(line, &all))
	require.Contains(t, all, field)
	all[field] = value
	raw, err := json.Marshal(all)
	require.NoError(t, err)
	return string(raw)
}

func TestParseRefuses(t *testing.T) {
	_, err := parse([]byte(with(t, "outcome", "unchanged")), noon)
	require.NoError(t, err)
	for _, c := range []struct {
		field string
		value any
	}{
		{"kind", "steal"}, {"kind", ""}, {"kind", 1}, {"outcome", "\x1b[31m"}, {"outcome", strings.Repeat("a", 99)}, {"outcome", ""},
		{"time", "0001-01-01T00:00:00Z"}, {"time", "yesterday"}, {"seconds", -1}, {"seconds", 1e300}, {"seconds", "NaN"},
		{"bytes_total", -1}, {"bytes_reused", 1 << 61}, {"bytes_streamed", 1e30}, {"bytes_resumed", 1.5}, {"phases", map[string]any{"fetch": -1}}, {"phases", map[string]any{"a b": 1}},
		{"phases", []int{1}}, {"origins", []any{map[string]any{"name": "x", "bytes": -1}}}, {"origins", []any{map[string]any{"connections": -1}}},
		{"origins", make([]map[string]any, maxOrigins+1)}, {"v", "1"}, {"v", nil}, {"v", 1.5},
	} {
		_, err := parse([]byte(with(t, c.field, c.value)), noon)
		assert.Error(t, err, "%s: %v", c.field, c.value)
	}
	_, err = parse([]byte(with(t, "v", 2)), noon)
	assert.ErrorIs(t, err, errVersion)
	_, err = parse([]byte(`{"v":2,"kind":{"new":true}}`), noon)
	assert.ErrorIs(t, err, errVersion, "it may have other types")
	_, err = parse([]byte(with(t, "time", noon.Add(48*time.Hour))), noon)
	assert.ErrorIs(t, err, errFuture)
	_, err = parse([]byte(with(t, "time", noon.Add(time.Hour))), noon)
	assert.NoError(t, err, "another host's clock")
	twice := strings.Replace(with(t, "v", 1), "{", `{"kind":"load",`, 1)
	_, err = parse([]byte(twice), noon)
	assert.Error(t, err, "a name that is there twice")
}
