package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
		"two tags":            {ref: "/a/b:one:two", kind: registry.ErrInvalidReference, says: `it has two tags, "one" and "two": leave one of them out`},
		"upper case":          {ref: "/Team/image:tag", kind: registry.ErrInvalidReference, says: "a repository is written in lower case"},
		"sha512 reference":    {ref: "/team/image:tag@" + sha512, kind: registry.ErrUnsupported, says: "is not sha256: other algorithms are not supported"},
		"sha384 reference":    {ref: "/team/image@sha384:" + sha512[7:7+96], kind: registry.ErrUnsupported, says: "is not sha256: other algorithms are not supported"},
		"sha512 entry":        {ref: "/bad/entry512:tag", kind: registry.ErrUnsupported, says: "entry for linux/" + registry.DefaultPlatform().Architecture + `: the digest "sha512:`},
		"sha512 config":       {ref: "/bad/config512:tag", kind: registry.ErrUnsupported, says: "config: the digest \"sha512:"},
		"sha512 layer":        {ref: "/bad/layer512:tag", kind: registry.ErrUnsupported, says: "layer 0: the digest \"sha512:"},
		"negative config":     {ref: "/bad/negative:tag", kind: registry.ErrUnsupported, says: "its size is negative: -1 bytes"},
		"immense config":      {ref: "/bad/immense:tag", kind: registry.ErrInvalidAnswer, says: `its field "config.size" is a number 1e30`},
		"ambiguous manifest":  {ref: "/bad/both:tag", kind: registry.ErrUnsupported, says: `it is ambiguous: an image manifest that also has "manifests"`},
		"ambiguous index":     {ref: "/bad/bothindex:tag", kind: registry.ErrUnsupported, says: `it is ambiguous: an index that also has "layers"`},
		"in two cases":        {ref: "/bad/cases:tag", kind: registry.ErrUnsupported, says: `"Layers": the name must be "layers" exactly`},
		"type in two cases":   {ref: "/bad/types:tag", kind: registry.ErrUnsupported, says: "ambiguous"},
		"many layers":         {ref: "/bad/layers:tag", kind: registry.ErrUnsupported, says: "20000 layers, more than 500"},
		"no image's config":   {ref: "/bad/noconfig:tag", kind: registry.ErrUnsupported, says: "it has no rootfs: not the config of a container image"},
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
			good := `{"mediaType":"` + string(types.OCIConfigJSON) + `","size":2,"digest":"sha256:` + zeros + `"}`
			bad := func(name, format string, args ...any) {
				server.PushManifest("bad/"+name+":tag", fmt.Appendf(nil, `{"schemaVersion":2,`+format+`}`, args...), types.OCIManifestSchema1)
			}
			bad("config512", `"config":{"digest":%q},"layers":[]`, sha512)
			bad("layer512", `"config":%s,"layers":[{"digest":%q}]`, good, sha512)
			bad("negative", `"config":%s,"layers":[]`, strings.Replace(good, ":2", ":-1", 1))
			bad("immense", `"config":%s,"layers":[]`, strings.Replace(good, ":2", ":1e30", 1))
			bad("both", `"config":%s,"layers":[],"manifests":[]`, good)
			bad("cases", `"config":%s,"Layers":[],"layers":[]`, good)
			bad("types", `"config":%s,"layers":[],"MediaType":"x"`, good)
			bad("layers", `"config":%s,"layers":[%s{}]`, good, strings.Repeat(`{"size":1},`, 19999))
			server.PushBlob("bad/noconfig", []byte("{}"), true)
			bad("noconfig", `"config":%s,"layers":[]`, strings.Replace(good, "sha256:"+zeros, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 1))
			server.PushManifest("bad/bothindex:tag", []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), types.OCIImageIndex)
			server.PushManifest("bad/entry512:tag", index(t, entry{"mediaType": types.OCIManifestSchema1, "size": 1, "digest": sha512}.on(registry.DefaultPlatform().String())), types.OCIImageIndex)
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

const sha512 = "sha512:" + zeros + zeros

// A config that is missing, or that the registry blocks, is named, as layers are, and so
// is the repository that it is missing in.
func TestResolveConfigIsNamed(t *testing.T) {
	for status, kind := range map[int]error{404: registry.ErrNotFound, 403: registry.ErrDenied, 451: registry.ErrInvalidAnswer, 503: registry.ErrUnreachable} {
		server := registrytest.New(t)
		image := randomImage(t, 1)
		ref := push(t, server, "team/image:tag", image)
		config, err := image.ConfigName()
		require.NoError(t, err)
		r := resolve(t, nil, ref)
		server.SetQuirks(registrytest.Quirks{Status: status})
		_, err = r.Image(t.Context())
		require.ErrorIs(t, err, kind)
		assert.ErrorContains(t, err, "read config "+config.String()+" of "+server.Host()+"/team/image: ")
	}
}

// What is listed and missing is named too.
func TestResolveManifestIsNamed(t *testing.T) {
	server := registrytest.New(t)
	missing := entry{"mediaType": types.OCIManifestSchema1, "size": 1, "digest": "sha256:" + zeros}
	ref := server.PushManifest("image:tag", index(t, missing.on("linux/amd64")), types.OCIImageIndex)
	_, err := newClient(nil).Image(t.Context(), linuxAMD64, ref)
	require.ErrorIs(t, err, registry.ErrNotFound)
	assert.ErrorContains(t, err, server.Host()+"/image@sha256:"+zeros)
}

// Some registries read the first line of Accept alone.
func TestResolveAccept(t *testing.T) {
	server := registrytest.New(t)
	resolve(t, nil, push(t, server, "image:tag", randomImage(t, 1)))
	requests := server.Requests()
	accept := requests[len(requests)-1].Header["Accept"]
	require.Len(t, accept, 1)
	for _, mediaType := range []types.MediaType{types.DockerManifestSchema2, types.OCIManifestSchema1, types.DockerManifestList, types.OCIImageIndex} {
		assert.Contains(t, accept[0], mediaType)
	}
}

// A password in a reference is in no error and no log line.
func TestResolveReferenceWithPassword(t *testing.T) {
	for _, ref := range []string{"user:topsecret@ghcr.io/a/b:t", "https://user:topsecret@ghcr.io/a/b:t", "ghcr.io/a/b:t?token=topsecret", "user:topsecret@localhost:5000"} {
		var log bytes.Buffer
		client := newClient(func(o *registry.Options) { o.Logger = logTo(&log) })
		_, err := client.Resolve(t.Context(), linuxAMD64, ref, ref)
		require.ErrorIs(t, err, registry.ErrInvalidReference)
		assert.ErrorContains(t, err, "leave ")
		assert.NotContains(t, err.Error()+log.String(), "topsecret")
	}
}

// An image of the days of Docker 1.10: types that say nothing, and a config with texts
// where lists should be. Its bytes stay as they are.
func TestResolveOldImage(t *testing.T) {
	server := registrytest.New(t)
	config := []byte(`{"os":"linux","architecture":"amd64","created":"?","config":{"Entrypoint":"sh -c","Cmd":"x","Env":null,"ExposedPorts":[]},"history":"odd","rootfs":{"type":"layers","diff_ids":[]}}`)
	server.PushBlob("image", config, true)
	for _, mediaType := range []string{"application/octet-stream", "text/html", ""} {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":"sha256:%x"},"layers":[]}`, types.DockerManifestSchema2, mediaType, len(config), sha256.Sum256(config))
		var log bytes.Buffer
		got, err := newClient(func(o *registry.Options) { o.Logger = logTo(&log) }).Image(t.Context(), v1.Platform{OS: "linux", Architecture: "arm64"}, server.PushManifest("image:tag", raw, types.DockerManifestSchema2))
		require.NoError(t, err, mediaType)
		assert.Equal(t, raw, got.Manifest())
		assert.Equal(t, config, got.Config())
		assert.Contains(t, log.String(), `"the image is for another platform"`)
	}
}

// The warning is by the rules of the choice: what runs is not for another platform.
func TestResolveWarnsOfAnotherPlatform(t *testing.T) {
	server := registrytest.New(t)
	for _, c := range []struct {
		have, want string
		warns      bool
	}{
		{"linux/amd64", "linux/amd64/v3", false}, {"linux/386", "linux/amd64", false}, {"linux/arm64", "linux/arm64/v8", false}, {"linux/x86_64", "linux/amd64", false},
		{"linux/amd64", "linux/386", true}, {"linux/arm64", "linux/arm", true}, {"windows/amd64", "linux/amd64", true}, {"", "linux/amd64", false},
	} {
		want, err := registry.ParsePlatform(c.want)
		require.NoError(t, err)
		var log bytes.Buffer
		_, err = newClient(func(o *registry.Options) { o.Logger = logTo(&log) }).Image(t.Context(), want, push(t, server, "image:tag", forPlatform(t, c.have)))
		require.NoError(t, err)
		assert.Equal(t, c.warns, strings.Contains(log.String(), "the image is for another platform"), c)
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

// What a reference names, as it is.
func TestManifest(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	manifest, err := image.RawManifest()
	require.NoError(t, err)
	index := indexOf(t, map[string]v1.Image{"linux/s390x": image}, "linux/s390x")
	indexRef, err := server.PushIndex("image:index", index)
	require.NoError(t, err)
	raw, err := index.RawManifest()
	require.NoError(t, err)
	client := newClient(nil)
	for ref, want := range map[string][]byte{indexRef: raw, server.Host() + "/image@" + digestOf(t, image).String(): manifest} {
		got, mediaType, err := client.Manifest(t.Context(), ref)
		require.NoError(t, err)
		assert.Equal(t, want, got)
		assert.Equal(t, ref == indexRef, mediaType.IsIndex())
	}
	for ref, kind := range map[string]error{server.Host() + "/image:other": registry.ErrNotFound, "a/../b": registry.ErrInvalidReference} {
		_, _, err := client.Manifest(t.Context(), ref)
		require.ErrorIs(t, err, kind)
		require.ErrorAs(t, err, new(*registry.Error))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = client.Manifest(ctx, indexRef)
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = new(registry.Client).Manifest(t.Context(), indexRef)
	require.ErrorContains(t, err, "not made by New")
}
