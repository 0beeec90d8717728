package loader

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

func TestConnectRefusesOthers(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	engine.SetQuirks(enginetest.Quirks{NotAnEngine: true})
	_, err := Connect(t.Context(), Host{Address: engine.Address()})
	require.ErrorIs(t, err, ErrEngine)
	require.ErrorContains(t, err, `engine at `+engine.Address()+`: engine failed: it answers with API version "": is that a container engine?`)
}

// What becomes of an engine that is none any more is an error too.
func TestAnswersThatAreNone(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	docker := connect(t, engine)
	engine.SetQuirks(enginetest.Quirks{NotAnEngine: true})
	_, _, err := docker.Find(t.Context(), testRef)
	require.ErrorIs(t, err, ErrEngine)
	require.ErrorContains(t, err, "is not what an engine gives")
}

func TestConnectSpeaksTheEnginesVersion(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	_, _, err := connect(t, engine).Find(t.Context(), testRef)
	require.NoError(t, err)
	assert.Equal(t, []string{"", "1.51"}, []string{engine.Requests()[0].Version, engine.Requests()[1].Version})
}

func TestAboutIsAskedOnce(t *testing.T) {
	engine, docker, tarball := prepared(t, enginetest.Options{})
	opts, _ := options(t)
	for range 2 {
		_, err := Load(t.Context(), docker, tarball, opts)
		require.NoError(t, err)
	}
	assert.NotContains(t, asked(engine), "GET /info") // prepared has asked
	other := connect(t, engine)
	engine.Forget()
	for range 2 {
		_, err := other.Describe(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"GET /info"}, asked(engine))
}

func TestDescribe(t *testing.T) {
	for name, want := range map[string]string{
		"classic":    "Docker 28.5.2 (classic store, overlay2) at unix:///",
		"containerd": "Docker 28.5.2 (containerd store, overlayfs) at unix:///",
		"docker 27":  "Docker 27.5.1 (containerd store, overlayfs) at unix:///",
		"podman":     "podman 5.4.2 (containers-storage, overlay) at unix:///",
	} {
		engine := enginetest.New(t, kinds[name])
		got, err := connect(t, engine).Describe(t.Context())
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(got, want), got)
	}
}

// Two that reach the same engine on different ways find each other; podman, which
// has no ID of its own, is known by its address.
func TestID(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine := enginetest.New(t, o)
		address, err := engine.ListenTCP()
		require.NoError(t, err)
		first, err := connect(t, engine).ID(t.Context())
		require.NoError(t, err)
		again, err := connect(t, engine).ID(t.Context())
		require.NoError(t, err)
		assert.Equal(t, first, again)
		docker, err := Connect(t.Context(), Host{Address: address})
		require.NoError(t, err)
		other, err := docker.ID(t.Context())
		require.NoError(t, err)
		if o.Kind == enginetest.Podman {
			assert.Equal(t, address, other)
			assert.Equal(t, engine.Address(), first)
			return
		}
		assert.Equal(t, first, other)
		another, err := connect(t, enginetest.New(t, o)).ID(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, first, another)
	})
}

func TestKnownToTakeDeltas(t *testing.T) {
	for _, c := range []struct {
		info info
		want bool
	}{
		{info{version: "19.03.15"}, false},
		{info{version: "20.10.24+dfsg1"}, true},
		{info{version: "29.0.0-rc.1"}, true},
		{info{version: "dev"}, false},
		{info{version: ""}, false},
		{info{version: "24.0.9", containerd: true}, false},
		{info{version: "25.0.0", containerd: true}, true},
		{info{version: "v2.4.2", podman: true}, false},
		{info{version: "4.3.1", podman: true}, true},
		{info{version: "5.10.0", podman: true}, true},
	} {
		assert.Equal(t, c.want, c.info.knownToTakeDeltas(), c.info)
	}
}

func TestParseID(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for _, id := range []string{hex, "sha256:" + hex} {
		h, err := parseID(id)
		require.NoError(t, err)
		assert.Equal(t, "sha256:"+hex, h.String())
	}
	for _, id := range []string{"", "sha256:", "sha256:" + hex[2:], "<none>"} {
		_, err := parseID(id)
		require.ErrorIs(t, err, ErrEngine, id)
	}
}
