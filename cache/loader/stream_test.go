package loader

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answers are what engines say to a load, and what that means; "" is success.
var answers = map[string]string{
	"": "",
	`{"stream":"Loaded image: docker.io/team/image:tag\n"}` + "\r\n": "",
	`{"stream":"Loaded image: Error unpacking:tag\n"}`:               "",
	`{"status":"Loading layer","progressDetail":{"current":1,"total":2},"progress":"[=>  ]","id":"ab"}` + "\r\n" + `{"stream":"Loaded image ID: sha256:00\n"}`: "",
	"not JSON\n{\"stream\":\"Loaded image: x\"}":                          "",
	`{"errorDetail":{"message":"no space left"},"error":"no space left"}`: "no space left",
	`{"status":"Loading layer"}` + "\n" + `{"error":"unexpected EOF\n"}`:  "unexpected EOF",
	// Docker 27 to 29 with containerd's store.
	`{"stream":"Loaded image: x:1\n"}` + "\r\n" + `{"stream":"Error unpacking image x:1: content digest sha256:00: not found\n"}` + "\r\n": "Error unpacking image x:1: content digest sha256:00: not found",
	`{"status":"  Error unpacking image x:1"}`: "Error unpacking image x:1",
	// The last line may come without its end.
	`{"stream":"a"}` + "\n" + `{"error":"late"}`: "late",
}

func TestReadLoadStream(t *testing.T) {
	for answer, want := range answers {
		for _, r := range []io.Reader{strings.NewReader(answer), iotest.OneByteReader(strings.NewReader(answer))} {
			err := readLoadStream(r)
			if want == "" {
				require.NoError(t, err, answer)
				continue
			}
			require.ErrorIs(t, err, ErrEngine, answer)
			assert.EqualError(t, err, "engine failed: "+want)
		}
	}
	// All of it is read: what is wrong comes last.
	err := readLoadStream(io.MultiReader(strings.NewReader(`{"stream":"Loaded image: x"}`+"\n"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	require.ErrorIs(t, err, ErrEngine)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	err = readLoadStream(strings.NewReader(`{"stream":"` + strings.Repeat("x", maxLine) + `"}`))
	require.ErrorIs(t, err, ErrEngine)
}

func FuzzReadLoadStream(f *testing.F) {
	for answer := range answers {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		err := readLoadStream(bytes.NewReader(answer))
		if err != nil && !errors.Is(err, ErrEngine) {
			t.Fatalf("%v is not the engine's", err)
		}
		failed := false
		for line := range bytes.SplitSeq(answer, []byte("\n")) {
			var m struct{ Error string }
			if json.Unmarshal(line, &m) == nil && m.Error != "" {
				failed = true
			}
		}
		if failed && err == nil {
			t.Fatal("an error was not seen")
		}
	})
}
