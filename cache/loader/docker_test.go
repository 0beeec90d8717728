package loader

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/enginetest"
)

func TestOpenRefusesOthers(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	engine.SetQuirks(enginetest.Quirks{NotAnEngine: true})
	_, err := openDocker(t.Context(), Host{Address: engine.Address()})
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

func TestOpenSpeaksTheEnginesVersion(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	_, _, err := connect(t, engine).Find(t.Context(), testRef)
	require.NoError(t, err)
	assert.Equal(t, []string{"", "1.51"}, []string{engine.Requests()[0].Version, engine.Requests()[1].Version})
}

func TestAboutIsAskedOnce(t *testing.T) {
	engine, docker, file := prepared(t, enginetest.Options{})
	opts, _ := options(t)
	for range 2 {
		_, err := Load(t.Context(), docker, file, opts)
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

// Two that reach the same engine in different ways get the same ID; podman, which
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
		docker, err := openDocker(t.Context(), Host{Address: address})
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

func TestFindAndName(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		id, _, err := docker.Find(t.Context(), testRef)
		require.NoError(t, err)
		assert.Equal(t, v1.Hash{}, id)
		require.NoError(t, docker.Name(t.Context(), testRef, v1.Hash{})) // it has none

		opts, _ := options(t)
		_, err = Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		id, state, err := docker.Find(t.Context(), testRef)
		require.NoError(t, err)
		assert.Equal(t, identity(file.Image, o), id.String())
		want := Usable
		if verifiedByContainer(o) { // such an engine does not say
			want = Unknown
		}
		assert.Equal(t, want, state)

		const other = "localhost:5000/team/image:1.0"
		require.NoError(t, docker.Name(t.Context(), other, id))
		assert.Equal(t, id.String(), engine.Names()[other])
		require.NoError(t, docker.Name(t.Context(), testRef, v1.Hash{}))
		assert.NotContains(t, engine.Names(), testRef)
		assert.Equal(t, id.String(), engine.Names()[other])
		require.ErrorIs(t, docker.Name(t.Context(), other, v1.Hash{Algorithm: "sha256", Hex: id.Hex[:62] + "00"}), ErrEngine)
		require.Error(t, docker.Name(t.Context(), "No Reference", id))
	})
}

func TestRemove(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		release, err := engine.Use(testRef)
		require.NoError(t, err)
		err = docker.Remove(t.Context(), testRef)
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorIs(t, err, ErrEngine)
		assert.Contains(t, engine.Names(), testRef)

		// The container keeps the image by the other name.
		const other = "localhost:5000/team/image:1.0"
		id, _, err := docker.Find(t.Context(), testRef)
		require.NoError(t, err)
		require.NoError(t, docker.Name(t.Context(), other, id))
		require.NoError(t, docker.Remove(t.Context(), testRef))
		assert.NotContains(t, engine.Names(), testRef)
		require.ErrorIs(t, docker.Remove(t.Context(), other), ErrInUse)

		release()
		require.NoError(t, docker.Remove(t.Context(), other))
		assert.NotContains(t, engine.IDs(), id.String())
		require.NoError(t, docker.Remove(t.Context(), other), "it is gone already")

		// By its identity an image goes that has no name, and only then.
		_, err = Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		require.NoError(t, docker.Remove(t.Context(), id.String()))
		assert.Contains(t, engine.Names(), testRef)
		engine.Unname(testRef)
		require.NoError(t, docker.Remove(t.Context(), id.String()))
		assert.NotContains(t, engine.IDs(), id.String())
		require.NoError(t, docker.Remove(t.Context(), id.String()))
	})
}

// As Docker 28 answers.
func TestFindStates(t *testing.T) {
	const id = "sha256:0b0af7e7a3ee9b3d2ddc5e7e44a6ad5e2a7ac9e1c4bb6e12a51e24c3dd8bb1a5"
	const layers = `"RootFS":{"Type":"layers","Layers":["` + id + `"]}`
	for answer, want := range map[string]State{
		`{"Id":"` + id + `",` + layers + `}`:                  Usable,
		`{"Id":"` + id + `",` + layers + `,"Manifests":null}`: Usable,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":8192}}}]}`:  Usable,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":false,"ImageData":{"Size":{"Unpacked":8192}}}]}`: Incomplete,
		// It is not unpacked, or its layers are empty on a file system where directories take
		// no space: a container shows which.
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":0}}}]}`: Unknown,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true}]}`:                                     Unknown,
		// An image of no layer has nothing to unpack; or the engine knows the types of none.
		`{"Id":"` + id + `","RootFS":{},"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":0}}}]}`:  Unknown,
		`{"Id":"` + id + `","RootFS":{},"Manifests":[{"ID":"` + id + `","Available":false,"ImageData":{"Size":{"Unpacked":0}}}]}`: Incomplete,
		// That of another platform, in an index.
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"sha256:00","Available":false}]}`: Unknown,
	} {
		var found imageJSON
		require.NoError(t, json.Unmarshal([]byte(answer), &found))
		assert.Equal(t, want, found.state(), answer)
	}
}

func TestHas(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		layers := file.Image.Layers()
		want := map[v1.Hash]bool{layers[0].Digest: true, layers[1].Digest: true, layers[2].Digest: false}
		// An image that cannot be inspected is no reason not to know the others.
		for _, q := range []enginetest.Quirks{{}, {BrokenInspect: true}} {
			engine.SetQuirks(q)
			has, err := docker.Has(t.Context(), file.Image)
			require.NoError(t, err)
			assert.Equal(t, want, has)
		}
		engine.Close()
		_, err := docker.Has(t.Context(), file.Image)
		require.ErrorIs(t, err, ErrUnreachable)
	})
}

func TestVerify(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		id, err := v1.NewHash(identity(file.Image, o))
		require.NoError(t, err)
		require.NoError(t, docker.Verify(t.Context(), id))
		assert.Zero(t, engine.Containers())
		require.ErrorIs(t, docker.Verify(t.Context(), v1.Hash{Algorithm: "sha256", Hex: id.Hex[:62] + "00"}), ErrEngine)
		engine.SetQuirks(enginetest.Quirks{CreateFails: true})
		err = docker.Verify(t.Context(), id)
		if verifiedByContainer(o) {
			require.ErrorContains(t, err, "status 500: error creating overlay mount")
		} else {
			require.NoError(t, err, "a container would make the engine wait for the disk")
		}
		if o.Kind == enginetest.Containerd && o.Version == "" {
			engine.SetQuirks(enginetest.Quirks{Incomplete: true})
			require.ErrorContains(t, docker.Verify(t.Context(), id), "is incomplete")
		}
	})
}

func TestDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("enough")
		parent, end := context.WithCancelCause(t.Context())
		ctx, cancel := detach(parent, time.Minute)
		defer cancel()
		end(reason)
		time.Sleep(time.Minute - time.Nanosecond) // of the bubble's clock
		synctest.Wait()
		require.NoError(t, ctx.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(ctx), reason)
		require.ErrorIs(t, context.Cause(ctx), context.Canceled)

		ctx, cancel = detach(t.Context(), time.Minute)
		cancel()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
	})
}

// Only Docker's classic store is known to verify layers before anything has the name.
func TestVerifiesLayers(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		assert.Equal(t, o.Kind == enginetest.Classic, connect(t, enginetest.New(t, o)).VerifiesLayers(t.Context()))
	})
	engine := enginetest.New(t, enginetest.Options{})
	engine.SetQuirks(enginetest.Quirks{DenyInfo: true})
	assert.False(t, connect(t, engine).VerifiesLayers(t.Context()), "one that reports nothing of itself")
}
