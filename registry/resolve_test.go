package registry_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

func TestResolve(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 2)
	ref := push(t, server, "team/image:tag", image)
	manifest, err := image.RawManifest()
	require.NoError(t, err)
	config, err := image.RawConfigFile()
	require.NoError(t, err)

	repository := strings.TrimSuffix(ref, ":tag")
	digest := digestOf(t, image).String()
	for _, ref := range []string{ref, repository + "@" + digest, repository + ":other@" + digest} {
		got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err, ref)
		assert.Equal(t, ref, got.Source())
		assert.Equal(t, digest, got.Digest().String())
		assert.Equal(t, manifest, got.Manifest())
		assert.Equal(t, config, got.Config())
		assert.Equal(t, types.DockerManifestSchema2, got.MediaType())
	}
}

func TestResolveLatest(t *testing.T) {
	server := registrytest.New(t)
	push(t, server, "image:latest", randomImage(t, 1))
	got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), server.Host()+"/image")
	require.NoError(t, err)
	assert.Equal(t, server.Host()+"/image:latest", got.Source())
}

func TestResolvePlatform(t *testing.T) {
	server := registrytest.New(t)
	images := map[string]v1.Image{"linux/amd64": forPlatform(t, "linux/amd64"), "linux/arm64/v8": randomImage(t, 1), "linux/arm/v7": randomImage(t, 1), "linux/s390x": randomImage(t, 1)}
	ref, err := server.PushIndex("image:tag", indexOf(t, images, "linux/arm/v7", "linux/arm64/v8", "linux/s390x", "linux/amd64"))
	require.NoError(t, err)
	client := newClient(nil)
	for asked, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/arm64": "linux/arm64/v8", "linux/arm64/v8": "linux/arm64/v8", "linux/arm": "linux/arm/v7", "linux/s390x": "linux/s390x",
	} {
		platform, err := registry.ParsePlatform(asked)
		require.NoError(t, err)
		got, err := client.Image(t.Context(), platform, ref)
		require.NoError(t, err, asked)
		assert.Equal(t, digestOf(t, images[want]), got.Digest(), asked)
	}

	_, err = client.Image(t.Context(), v1.Platform{OS: "linux", Architecture: "riscv64"}, ref)
	require.ErrorIs(t, err, registry.ErrNoPlatform)
	assert.ErrorContains(t, err, "wanted is linux/riscv64, the index has linux/arm/v7, linux/arm64/v8, linux/s390x, linux/amd64")
	assert.NotContains(t, err.Error(), "unknown", "an attestation is no choice")

	// A manifest without an index has no platform: it passes.
	plain := push(t, server, "plain:tag", images["linux/amd64"])
	var log bytes.Buffer
	client = newClient(func(o *registry.Options) { o.Logger = logTo(&log) })
	_, err = client.Image(t.Context(), v1.Platform{OS: "linux", Architecture: "riscv64"}, plain)
	require.NoError(t, err)
	assert.Contains(t, log.String(), `"the image is for another platform"`)
}

func TestResolveEmptyIndex(t *testing.T) {
	server := registrytest.New(t)
	ref, err := server.PushIndex("image:tag", indexOf(t, nil))
	require.NoError(t, err)
	_, err = newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrNoPlatform)
	assert.ErrorContains(t, err, "lists no image at all")
}

// An index that lies about the manifest behind it.
func TestResolveIndexDeclaresAnotherSize(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	push(t, server, "image:plain", image)
	index := bytes.NewBufferString(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":1,"digest":"`)
	index.WriteString(digestOf(t, image).String() + `","platform":{"os":"linux","architecture":"amd64"}}]}`)
	ref := server.PushManifest("image:tag", index.Bytes(), types.OCIImageIndex)
	_, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrInvalidAnswer)
	assert.ErrorContains(t, err, "the index declares 1 bytes")
}

func TestResolveFails(t *testing.T) {
	image := randomImage(t, 1)
	for name, c := range map[string]struct {
		quirks registrytest.Quirks
		ref    string // default: the image that is there
		kind   error
		says   string
	}{
		"unknown tag":         {ref: "/team/image:other", kind: registry.ErrNotFound, says: "MANIFEST_UNKNOWN manifest unknown"},
		"unknown repository":  {ref: "/other:tag", kind: registry.ErrNotFound},
		"denied":              {quirks: registrytest.Quirks{Status: 403}, kind: registry.ErrDenied, says: "status 403 Forbidden"},
		"no credentials":      {quirks: registrytest.Quirks{User: "u", Password: "p"}, kind: registry.ErrDenied, says: "UNAUTHORIZED authentication required"},
		"always unavailable":  {quirks: registrytest.Quirks{Status: 503}, kind: registry.ErrUnreachable, says: "status 503"},
		"always too many":     {quirks: registrytest.Quirks{Status: 429}, kind: registry.ErrUnreachable, says: "status 429"},
		"strange status":      {quirks: registrytest.Quirks{Status: 418}, kind: registry.ErrInvalidAnswer, says: "status 418"},
		"not a registry":      {quirks: registrytest.Quirks{NotARegistry: true}, kind: registry.ErrInvalidAnswer, says: "status 404"},
		"stated digest":       {quirks: registrytest.Quirks{WrongContentDigest: true}, kind: registry.ErrDigest, says: "the registry states sha256:000"},
		"corrupt under a tag": {quirks: registrytest.Quirks{CorruptManifest: true}, kind: registry.ErrDigest, says: "the registry states"},
		"corrupt, by digest":  {quirks: registrytest.Quirks{CorruptManifest: true, NoContentDigest: true}, ref: "/team/image@" + digestOf(t, image).String(), kind: registry.ErrDigest, says: "its bytes have the digest"},
		"corrupt config":      {quirks: registrytest.Quirks{CorruptConfig: true}, kind: registry.ErrDigest, says: "its bytes have the digest"},
		"not JSON":            {ref: "/bad/html:tag", kind: registry.ErrInvalidAnswer, says: `is not JSON (6 bytes of type "application/vnd.oci.image.manifest.v1+json")`},
		"schema 1":            {ref: "/bad/schema1:tag", kind: registry.ErrUnsupported, says: "schema version 1: push the image again"},
		"unknown media type":  {ref: "/bad/type:tag", kind: registry.ErrUnsupported, says: `media type "application/x-what"`},
		"lying media type":    {ref: "/bad/lie:tag", kind: registry.ErrInvalidAnswer, says: "but says of itself"},
		"artifact":            {ref: "/bad/artifact:tag", kind: registry.ErrUnsupported, says: "an artifact, not a container image"},
		"huge config":         {ref: "/bad/config:tag", kind: registry.ErrUnsupported, says: "more than"},
		"huge manifest":       {ref: "/bad/huge:tag", kind: registry.ErrUnsupported, says: "more than"},
		"malformed reference": {ref: "/a/../b:tag", kind: registry.ErrInvalidReference},
	} {
		t.Run(name, func(t *testing.T) {
			server := registrytest.New(t)
			push(t, server, "team/image:tag", image)
			server.PushManifest("bad/html:tag", []byte("<html>"), types.OCIManifestSchema1)
			server.PushManifest("bad/schema1:tag", []byte(`{"schemaVersion":1,"fsLayers":[]}`), types.DockerManifestSchema1Signed)
			server.PushManifest("bad/type:tag", []byte(`{"schemaVersion":2}`), "application/x-what")
			server.PushManifest("bad/lie:tag", []byte(`{"schemaVersion":2,"mediaType":"`+types.OCIImageIndex+`"}`), types.OCIManifestSchema1)
			server.PushManifest("bad/artifact:tag", []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}`), types.OCIManifestSchema1)
			server.PushManifest("bad/config:tag", []byte(`{"schemaVersion":2,"config":{"mediaType":"`+string(types.OCIConfigJSON)+`","size":99999999999,"digest":"`+digestOf(t, image).String()+`"}}`), types.OCIManifestSchema1)
			server.PushManifest("bad/huge:tag", bytes.Repeat([]byte(" "), 5<<20), types.OCIManifestSchema1)
			server.SetQuirks(c.quirks)
			ref := server.Host() + "/team/image:tag"
			if c.ref != "" {
				ref = server.Host() + c.ref
			}
			got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
			require.ErrorIs(t, err, c.kind)
			assert.Nil(t, got)
			assert.ErrorContains(t, err, c.says)
			assert.ErrorContains(t, err, server.Host(), "the error names the source")
			assert.Less(t, len(err.Error()), 600, "a foreign page is not in the error")
			var typed *registry.Error
			require.ErrorAs(t, err, &typed)
		})
	}
}

func TestResolveConfigIsVerified(t *testing.T) {
	image := randomImage(t, 1)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	raw, err := image.RawManifest()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		old, new string
		kind     error
	}{
		"longer than declared":  {`"size":` + itoa(manifest.Config.Size), `"size":` + itoa(manifest.Config.Size-1), registry.ErrSize},
		"shorter than declared": {`"size":` + itoa(manifest.Config.Size), `"size":` + itoa(manifest.Config.Size+1), registry.ErrSize},
		"absent":                {manifest.Config.Digest.Hex, strings.Repeat("a", 64), registry.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			server := registrytest.New(t)
			push(t, server, "image:good", image)
			changed := bytes.Replace(raw, []byte(c.old), []byte(c.new), 1)
			require.NotEqual(t, raw, changed)
			ref := server.PushManifest("image:tag", changed, types.DockerManifestSchema2)
			_, err = newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
			require.ErrorIs(t, err, c.kind)
		})
	}
}

func TestResolveRegistryDown(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	server.Close()
	_, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	assert.ErrorContains(t, err, "connection refused")
}

func TestResolveTriesSourcesInOrder(t *testing.T) {
	mirror, own := registrytest.New(t), registrytest.New(t)
	image := randomImage(t, 1)
	ownRef := push(t, own, "own/image:tag", image)
	absent := mirror.Host() + "/mirror/image:tag"
	var log bytes.Buffer
	client := newClient(func(o *registry.Options) { o.Logger = logTo(&log) })

	got, err := client.Image(t.Context(), registry.DefaultPlatform(), absent, ownRef)
	require.NoError(t, err)
	assert.Equal(t, ownRef, got.Source())
	assert.Contains(t, log.String(), absent, "the log has what was given up")

	there := push(t, mirror, "mirror/image:tag", image)
	asked := len(own.Requests())
	got, err = client.Image(t.Context(), registry.DefaultPlatform(), there, ownRef)
	require.NoError(t, err)
	assert.Equal(t, there, got.Source())
	assert.Len(t, own.Requests(), asked, "the second source was not asked")

	mirror.Close()
	own.SetQuirks(registrytest.Quirks{Status: 403})
	_, err = client.Image(t.Context(), registry.DefaultPlatform(), there, ownRef)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.ErrorContains(t, err, there)
	assert.ErrorContains(t, err, ownRef)
}

func TestResolveCanceled(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	reason := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, err := newClient(nil).Image(ctx, registry.DefaultPlatform(), ref, ref)
	require.EqualError(t, err, "interrupted", "an end that was asked for is not the registry's trouble")
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)

	_, err = newClient(nil).Image(t.Context(), registry.DefaultPlatform())
	require.Error(t, err)
}
