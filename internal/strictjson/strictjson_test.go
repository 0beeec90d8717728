package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type embedded struct {
	Kind string `json:"kind"`
}

type inner struct {
	Name string `json:"name"`
}

type outer struct {
	embedded
	ID     int64             `json:"id"`
	One    *inner            `json:"one"`
	List   []inner           `json:"list"`
	Map    map[string]inner  `json:"map"`
	Labels map[string]string `json:"labels"`
	At     time.Time         `json:"at"`
	Bytes  []byte            `json:"bytes"`
	Any    any               `json:"any"`
	Raw    json.RawMessage   `json:"raw"`
	Plain  string
	Out    string `json:"-"`
	hidden string
}

func TestUnmarshal(t *testing.T) {
	_ = outer{}.hidden
	for _, good := range []string{
		`{}`, `null`, ` {"id": 1, "one": null, "list": null, "map": null} `,
		`{"kind": "k", "id": 7, "one": {"name": "a", "other": 1, "OTHER": 2}, "list": [{"name": "a"}, {"name": "b"}], "map": {"a": {}, "A": {}}}`,
		`{"unread": {"id": 1, "id": 2}, "unread": [], "UNREAD": 1, "any": {"a": 1, "a": 2}, "raw": {"a": 1, "a": 2}, "OUT": "", "hidden": 1, "HIDDEN": 2}`,
		`{"at": "2026-01-02T03:04:05Z", "bytes": "AAAA", "Plain": "x", "labels": {"x": "1", "X": "2"}}`,
		`{"unread": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	} {
		var strict, loose outer
		require.NoError(t, Unmarshal([]byte(good), &strict), good)
		require.NoError(t, json.Unmarshal([]byte(good), &loose))
		assert.Equal(t, loose, strict)
	}
	for bad, says := range map[string]string{
		`{"id": 1, "id": 1}`:                       `"id" is there twice`,
		`{"id": 1, "i\u0064": 2}`:                  `"id" is there twice`,
		`{"id": 1, "ID": 2}`:                       `"ID": the name must be "id" exactly`,
		`{"Id": 1}`:                                `"Id": the name must be "id" exactly`,
		`{"liſt": []}`:                             `the name must be "list" exactly`, // U+017F: encoding/json takes it for an s
		`{"\u212Aind": ""}`:                        `the name must be "kind" exactly`, // the Kelvin sign
		`{"kind": "a", "kind": "b"}`:               `"kind" is there twice`,
		`{"plain": ""}`:                            `the name must be "Plain" exactly`,
		`{"one": {"name": "a", "name": "b"}}`:      `"one.name" is there twice`,
		`{"one": {"NAME": "a"}}`:                   `"one.NAME": the name must be "name"`,
		`{"list": [{}, {"name": "", "Name": ""}]}`: `"list[1].Name": the name must be "name"`,
		`{"map": {"a": {}, "a": {}}}`:              `"map.a" is there twice`,
		`{"map": {"a": {"NAME": ""}}}`:             `"map.a.NAME"`,
		`{"labels": {"x": "1", "x": "1"}}`:         `"labels.x" is there twice`,
		`{"one": {}, "x": 1, "one": {}}`:           `"one" is there twice`,
		`{"id": 1} {}`:                             "after top-level value",
		`{"id": "1"}`:                              "cannot unmarshal string",
		``:                                         "unexpected end",
	} {
		assert.ErrorContains(t, Unmarshal([]byte(bad), new(outer)), says, bad)
	}
	var list []inner
	require.ErrorContains(t, Unmarshal([]byte(`[{"name": "a", "name": "b"}]`), &list), `"[0].name" is there twice`)
}

// What is accepted means the same to a reader that takes exact names, and the first of
// each.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"id": 1, "one": {"name": "a"}, "list": [{"name": "b"}], "labels": {"x": "y"}}`))
	f.Add([]byte(`{"id": 1, "ID": 2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v outer
		if Unmarshal(raw, &v) != nil || raw[0] == 'n' {
			return
		}
		var exact map[string]json.RawMessage
		if json.Unmarshal(raw, &exact) != nil {
			return // null
		}
		if v.ID != 0 {
			var id int64
			require.NoError(t, json.Unmarshal(exact["id"], &id))
			require.Equal(t, v.ID, id)
		}
	})
}
