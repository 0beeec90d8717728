package loader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/enginetest"
)

// An image can be loaded over everything that an engine listens on.
func TestTransports(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	plain, err := engine.ListenTCP()
	require.NoError(t, err)
	secure, certs, err := engine.ListenTLS()
	require.NoError(t, err)
	alone := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(alone, "certs"), 0o755))
	for _, f := range []string{"cert.pem", "key.pem"} {
		raw, err := os.ReadFile(filepath.Join(certs, f))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(alone, "certs", f), raw, 0o600))
	}
	bad := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bad, "ca.pem"), []byte("none"), 0o600))
	_, port, err := net.SplitHostPort(plain[len("tcp://"):])
	require.NoError(t, err)
	for name, c := range map[string]struct {
		host Host
		want error
		text string
	}{
		"socket":                {Host{Address: engine.Address()}, nil, ""},
		"tcp":                   {Host{Address: plain}, nil, ""},
		"tcp by name":           {Host{Address: "tcp://localhost:" + port}, nil, ""},
		"http":                  {Host{Address: "http://127.0.0.1:" + port}, nil, ""},
		"tls":                   {Host{Address: secure, TLS: true, CertDir: certs}, nil, ""},
		"https":                 {Host{Address: "https" + secure[len("tcp"):], CertDir: certs}, nil, ""},
		"unchecked":             {Host{Address: secure, TLS: true, SkipVerify: true, CertDir: filepath.Join(alone, "certs")}, nil, ""},
		"no authority":          {Host{Address: secure, TLS: true, CertDir: filepath.Join(alone, "certs")}, ErrUnreachable, "unknown authority"},
		"no client certificate": {Host{Address: secure, TLS: true, SkipVerify: true}, ErrUnreachable, "certificate required"},
		"tls without":           {Host{Address: secure}, ErrEngine, "status 400"},
		"bad authority":         {Host{Address: secure, TLS: true, CertDir: bad}, ErrInvalidHost, "ca.pem has no certificate"},
		"no socket":             {Host{Address: "unix:///no/such.sock"}, ErrUnreachable, "is an engine running, and its address right"},
		"nobody listens":        {Host{Address: "tcp://127.0.0.1:1"}, ErrUnreachable, "connection refused"},
		"no address":            {Host{}, ErrInvalidHost, "want unix:///PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, err := openDocker(t.Context(), c.host)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, c.text)
				assert.NotContains(t, err.Error(), "http://engine")
				return
			}
			require.NoError(t, err)
			opts, _ := options(t)
			_, err = Load(t.Context(), docker, stocked(t, testRef, small("a", "b")...), opts)
			require.NoError(t, err)
			described, err := docker.Describe(t.Context())
			require.NoError(t, err)
			assert.Contains(t, described, c.host.Address)
		})
	}
}

func TestDefaultPorts(t *testing.T) {
	for want, h := range map[string]Host{
		"http://h:2375":      {Address: "tcp://h"},
		"https://h:2376":     {Address: "tcp://h", TLS: true},
		"http://h:1":         {Address: "tcp://h:1"},
		"https://[::1]:2376": {Address: "tcp://[::1]", TLS: true},
		"https://h":          {Address: "https://h"},
		"http://h":           {Address: "http://h"},
	} {
		_, base, err := h.client()
		require.NoError(t, err)
		assert.Equal(t, want, base)
	}
}

// The reason of a context is what comes out of every call.
func TestCallsEndWithTheContext(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	docker := connect(t, engine)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, _, err := docker.Find(ctx, testRef)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	_, err = openDocker(ctx, Host{Address: engine.Address()})
	require.ErrorIs(t, err, reason)
}

// answers are what engines answer to a load, and what that means; "" is success.
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
			err := readLoadStream(r, nil)
			if want == "" {
				require.NoError(t, err, answer)
				continue
			}
			require.ErrorIs(t, err, ErrEngine, answer)
			assert.EqualError(t, err, "engine failed: "+want)
		}
	}
	// All of it is read: what is wrong comes last.
	err := readLoadStream(io.MultiReader(strings.NewReader(`{"stream":"Loaded image: x"}`+"\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil)
	require.ErrorIs(t, err, ErrEngine)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	err = readLoadStream(strings.NewReader(`{"stream":"`+strings.Repeat("x", maxLine)+`"}`), nil)
	require.ErrorIs(t, err, ErrEngine)
}

func FuzzReadLoadStream(f *testing.F) {
	for answer := range answers {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		err := readLoadStream(bytes.NewReader(answer), nil)
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
