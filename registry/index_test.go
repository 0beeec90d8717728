package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// linuxAMD64 is asked for where the platform matters, so that the tests do not depend on
// the machine's.
var linuxAMD64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// forPlatform returns an image whose config states a platform, OS/ARCH; none if it is "".
func forPlatform(t testing.TB, platform string) v1.Image {
	t.Helper()
	image := randomImage(t, 1)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, _ = strings.Cut(platform, "/")
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	return image
}

// entry is what an index lists: a descriptor as it is written, so that a test may write
// any.
type entry map[string]any

// pushed stores a manifest or index in the repository "image" and returns its entry.
func pushed(s *registrytest.Server, raw []byte, mediaType types.MediaType) entry {
	s.PushManifest("image:pushed", raw, mediaType)
	digest, _, _ := v1.SHA256(bytes.NewReader(raw)) // a memory reader does not fail
	return entry{"mediaType": mediaType, "size": len(raw), "digest": digest.String()}
}

// of returns the entry of an image that is stored in the repository "image".
func of(t testing.TB, s *registrytest.Server, image v1.Image, platform string) entry {
	t.Helper()
	push(t, s, "image:pushed", image)
	raw, err := image.RawManifest()
	require.NoError(t, err)
	return pushed(s, raw, types.DockerManifestSchema2).on(platform)
}

// on states a platform as OS/ARCH[/VARIANT], "" for none.
func (e entry) on(platform string) entry {
	if platform != "" {
		parts := append(strings.Split(platform, "/"), "")
		e["platform"] = map[string]any{"os": parts[0], "architecture": parts[1], "variant": parts[2]}
	}
	return e
}

func (e entry) with(key string, value any) entry { e[key] = value; return e }

func index(t testing.TB, entries ...entry) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": entries})
	require.NoError(t, err)
	return raw
}

// artifact returns the entry of an artifact's manifest, without a platform. Change is a
// part of its JSON.
func artifact(s *registrytest.Server, change string) entry {
	const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":1,"digest":"sha256:` + zeros + `"}`
	manifest := fmt.Sprintf(`{"schemaVersion":2,%s,"layers":[%s]}`, change, layer)
	return pushed(s, []byte(manifest), types.OCIManifestSchema1)
}

const (
	zeros      = "0000000000000000000000000000000000000000000000000000000000000000"
	helmConfig = `"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","size":1,"digest":"sha256:` + zeros + `"}`
)

// The nearest image for what was asked, whatever the order in the index is, and the first
// of equals.
func TestResolveVariants(t *testing.T) {
	for name, c := range map[string]struct{ asked, listed, want string }{
		"baseline":                    {"linux/amd64", "linux/amd64/v3 linux/amd64/v2 linux/amd64", "linux/amd64"},
		"baseline by name":            {"linux/amd64", "linux/amd64/v4 linux/amd64/v1", "linux/amd64/v1"},
		"exact":                       {"linux/amd64/v2", "linux/amd64 linux/amd64/v3 linux/amd64/v2", "linux/amd64/v2"},
		"nearest below":               {"linux/amd64/v4", "linux/amd64 linux/amd64/v2 linux/amd64/v3", "linux/amd64/v3"},
		"never above":                 {"linux/amd64", "linux/amd64/v2 linux/amd64/v3", ""},
		"386 runs on amd64":           {"linux/amd64", "linux/386 linux/arm64", "linux/386"},
		"but is not preferred":        {"linux/amd64/v2", "linux/386 linux/amd64", "linux/amd64"},
		"arm is v7":                   {"linux/arm", "linux/arm/v5 linux/arm/v8 linux/arm/v6 linux/arm/v7", "linux/arm/v7"},
		"arm below":                   {"linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"},
		"arm64 above":                 {"linux/arm64", "linux/arm64/v9 linux/arm64/v8.2", ""},
		"arm64 baseline":              {"linux/arm64/v9", "linux/arm64/v9.1 linux/arm64 linux/arm64/v8.5", "linux/arm64/v8.5"},
		"other names, in the index":   {"linux/amd64", "linux/aarch64 linux/x86_64", "linux/x86_64"},
		"other names, in the request": {"linux/aarch64", "linux/amd64 linux/arm64/v8", "linux/arm64/v8"},
		"32 bits on arm64":            {"linux/arm64", "linux/amd64 linux/arm/v6 linux/arm/v7", "linux/arm/v7"},
	} {
		server := registrytest.New(t)
		var entries []entry
		images := map[string]v1.Image{}
		for platform := range strings.FieldsSeq(c.listed) {
			images[platform] = randomImage(t, 1)
			// Twice: the first of equals is taken.
			entries = append(entries, of(t, server, images[platform], platform), of(t, server, randomImage(t, 1), platform))
		}
		ref := server.PushManifest("image:tag", index(t, entries...), types.OCIImageIndex)
		asked, err := registry.ParsePlatform(c.asked)
		require.NoError(t, err)
		before := len(server.Requests())
		got, err := newClient(nil).Resolve(t.Context(), asked, ref)
		assert.Len(t, server.Requests(), before+2, "%s: the login and one request", name)
		if c.want == "" {
			require.ErrorIs(t, err, registry.ErrNoPlatform, name)
			assert.ErrorContains(t, err, "the index has "+strings.ReplaceAll(c.listed, " ", ", "), name)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, digestOf(t, images[c.want]), got.Digest(), name)
	}
}

// What the error lists is limited, what is looked at is not.
func TestResolveLastOfMany(t *testing.T) {
	server := registrytest.New(t)
	var entries []entry
	for i := range 500 {
		e := pushed(server, fmt.Appendf(nil, `{"schemaVersion":2,"x":%d}`, i), types.OCIManifestSchema1)
		e["platform"] = map[string]any{"os": "windows", "architecture": "amd64", "os.version": fmt.Sprintf("10.0.%d.1", 10000+i)}
		entries = append(entries, e)
	}
	image := randomImage(t, 1)
	entries = append(entries, of(t, server, image, "linux/amd64"))
	ref := server.PushManifest("image:tag", index(t, entries...), types.OCIImageIndex)
	got, err := newClient(nil).Resolve(t.Context(), linuxAMD64, ref)
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, image), got.Digest())

	_, err = newClient(nil).Resolve(t.Context(), v1.Platform{OS: "linux", Architecture: "s390x"}, ref)
	require.ErrorIs(t, err, registry.ErrNoPlatform)
	assert.ErrorContains(t, err, "windows/amd64:10.0.10019.1, … (481 more)")
}

// A stated platform wins over none; among those that state none, an image over what is
// none, and one whose config fits over one whose config does not.
func TestResolveWithoutPlatform(t *testing.T) {
	for name, c := range map[string]struct {
		entries func(s *registrytest.Server, image v1.Image) []entry
		kind    error // nil: image is found
		says    string
	}{
		"a chart before the image": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{artifact(s, helmConfig), of(t, s, image, "linux/amd64")}
		}, nil, ""},
		"a chart before the image without platform": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{artifact(s, helmConfig), of(t, s, image, "")}
		}, nil, ""},
		"artifact type in the entry": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{of(t, s, randomImage(t, 1), "linux/amd64").with("artifactType", "application/vnd.example"), of(t, s, image, "")}
		}, nil, ""},
		"artifact type of an image": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{of(t, s, image, "linux/amd64").with("artifactType", types.OCIConfigJSON)}
		}, nil, ""},
		"artifact type in the manifest": {func(s *registrytest.Server, image v1.Image) []entry {
			config := `"artifactType":"application/x.example","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":1,"digest":"sha256:` + zeros + `"}`
			return []entry{artifact(s, config), of(t, s, image, "")}
		}, nil, ""},
		"a manifest that is missing": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{{"mediaType": types.OCIManifestSchema1, "size": 2, "digest": "sha256:" + zeros}, of(t, s, image, "")}
		}, nil, ""},
		"another platform before": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{of(t, s, forPlatform(t, "linux/arm64"), ""), of(t, s, forPlatform(t, "linux/386"), ""), of(t, s, image, "")}
		}, nil, ""},
		"stated, though later": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{of(t, s, forPlatform(t, "linux/amd64"), ""), of(t, s, image, "linux/amd64")}
		}, nil, ""},
		"a platform without architecture": {func(s *registrytest.Server, image v1.Image) []entry {
			return []entry{of(t, s, image, "").with("platform", map[string]any{})}
		}, nil, ""},
		"only others": {func(s *registrytest.Server, _ v1.Image) []entry {
			return []entry{of(t, s, forPlatform(t, "linux/arm64"), "")}
		}, registry.ErrNoPlatform, "the index has linux/arm64"},
		"only artifacts": {func(s *registrytest.Server, _ v1.Image) []entry { return []entry{artifact(s, helmConfig)} }, registry.ErrNoImage, "lists no image at all"},
		"only one that is missing": {func(*registrytest.Server, v1.Image) []entry {
			return []entry{{"mediaType": types.OCIManifestSchema1, "size": 2, "digest": "sha256:" + zeros}}
		}, registry.ErrNotFound, "image@sha256:" + zeros},
	} {
		t.Run(name, func(t *testing.T) {
			server := registrytest.New(t)
			image := forPlatform(t, "linux/amd64")
			ref := server.PushManifest("image:tag", index(t, c.entries(server, image)...), types.OCIImageIndex)
			r, err := newClient(nil).Resolve(t.Context(), linuxAMD64, ref)
			if c.kind != nil {
				require.ErrorIs(t, err, c.kind)
				assert.ErrorContains(t, err, c.says)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, digestOf(t, image), r.Digest())
			_, err = r.Image(t.Context())
			require.NoError(t, err)
			for _, request := range server.Requests() {
				assert.LessOrEqual(t, strings.Count(strings.Join(asked(server), "\n")+"\n", request.Path+"\n"), 1, "%s is asked for once", request.Path)
			}
		})
	}
}

// Entries without a platform cost a request each; an index of thousands of them does not
// cost thousands.
func TestResolveManyWithoutPlatform(t *testing.T) {
	server := registrytest.New(t)
	var entries []entry
	for i := range 1000 {
		entries = append(entries, artifact(server, fmt.Sprintf(`"x":%d,%s`, i, helmConfig)))
	}
	ref := server.PushManifest("image:tag", index(t, entries...), types.OCIImageIndex)
	_, err := newClient(nil).Resolve(t.Context(), linuxAMD64, ref)
	require.ErrorIs(t, err, registry.ErrUnsupported)
	assert.ErrorContains(t, err, "more than 32 of its entries state no platform")
	assert.LessOrEqual(t, len(server.Requests()), 40)
}

// The indexes through which an image was found, byte by byte.
func TestResolveIndexes(t *testing.T) {
	server := registrytest.New(t)
	image := forPlatform(t, "linux/amd64")
	listed := of(t, server, image, "linux/amd64")
	inner := index(t, listed, entry{"mediaType": types.OCIManifestSchema1, "size": 1, "digest": "sha256:" + zeros, "artifactType": "application/vnd.example"})
	middle := index(t, artifact(server, helmConfig), pushed(server, inner, types.OCIImageIndex))
	outer := index(t, of(t, server, randomImage(t, 1), "linux/s390x"), pushed(server, middle, types.OCIImageIndex).on("linux/amd64"))
	tooDeep := index(t, pushed(server, outer, types.OCIImageIndex))
	resolve := func(raw []byte) (*registry.Resolved, error) {
		return newClient(nil).Resolve(t.Context(), linuxAMD64, server.PushManifest("image:tag", raw, types.OCIImageIndex))
	}
	for _, want := range [][][]byte{{inner}, {middle, inner}, {outer, middle, inner}} {
		r, err := resolve(want[0])
		require.NoError(t, err)
		assert.Equal(t, digestOf(t, image), r.Digest())
		assert.Equal(t, want, r.Indexes())
		clear(r.Indexes()[0])
		got, err := r.Image(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, got.Indexes())
		assert.Equal(t, want, r.Indexes())
		assert.Equal(t, []registry.Companion{{Kind: "artifact", Type: "application/vnd.example", Count: 1}}, r.Companions())
	}
	_, err := resolve(tooDeep)
	require.ErrorIs(t, err, registry.ErrUnsupported)
	assert.ErrorContains(t, err, "more than 2 levels are not followed")

	r, err := newClient(nil).Image(t.Context(), linuxAMD64, push(t, server, "image:plain", image))
	require.NoError(t, err)
	assert.Nil(t, r.Indexes(), "a manifest is in no index")
	assert.Nil(t, (*registry.Resolved)(nil).Indexes())
	assert.Nil(t, (*registry.Resolved)(nil).Companions())
}

// One index in another does not hide what is beside it.
func TestResolveBesideANestedIndex(t *testing.T) {
	server := registrytest.New(t)
	image := forPlatform(t, "linux/amd64")
	listed := of(t, server, image, "linux/amd64")
	other := pushed(server, index(t, of(t, server, randomImage(t, 1), "linux/s390x")), types.OCIImageIndex)
	missing := entry{"mediaType": types.OCIImageIndex, "size": 2, "digest": "sha256:" + zeros}
	for name, entries := range map[string][]entry{
		"other platforms": {other, listed}, "missing": {missing, listed}, "missing, with the platform": {missing.on("linux/amd64"), listed},
		"in the second": {other, missing, pushed(server, index(t, listed), types.OCIImageIndex)},
		"the same one":  {other, other, pushed(server, index(t, other, listed), types.OCIImageIndex)},
	} {
		raw := index(t, entries...)
		r, err := newClient(nil).Resolve(t.Context(), linuxAMD64, server.PushManifest("image:tag", raw, types.OCIImageIndex))
		require.NoError(t, err, name)
		assert.Equal(t, digestOf(t, image), r.Digest(), name)
		assert.Equal(t, raw, r.Indexes()[0], name)
	}
}

// What is beside the image is counted, as the index shows it, without a request.
func TestCompanions(t *testing.T) {
	server := registrytest.New(t)
	image := forPlatform(t, "linux/amd64")
	listed := of(t, server, image, "linux/amd64")
	attestation := func(about any) entry {
		annotations := map[string]any{"vnd.docker.reference.type": "attestation-manifest"}
		if about != nil {
			annotations["vnd.docker.reference.digest"] = about
		}
		return artifact(server, helmConfig).on("unknown/unknown").with("annotations", annotations)
	}
	ref := server.PushManifest("image:tag", index(t,
		attestation(listed["digest"]), listed, attestation(nil), attestation("sha256:"+zeros),
		of(t, server, randomImage(t, 1), "linux/s390x"),
		artifact(server, helmConfig).with("artifactType", "application/vnd.dev.sigstore.bundle.v0.3+json"),
		artifact(server, helmConfig).with("artifactType", "application/vnd.cncf.notary.signature"),
		artifact(server, helmConfig).with("artifactType", "application/spdx+json"),
		artifact(server, helmConfig).with("artifactType", "application/spdx+json"),
	), types.OCIImageIndex)
	before := len(server.Requests())
	r, err := newClient(nil).Resolve(t.Context(), linuxAMD64, ref)
	require.NoError(t, err)
	assert.Len(t, server.Requests(), before+2)
	var texts []string
	for _, c := range r.Companions() {
		texts = append(texts, c.String())
	}
	assert.Equal(t, []string{"2 attestations", `1 signature of type "application/vnd.dev.sigstore.bundle.v0.3+json"`, `1 signature of type "application/vnd.cncf.notary.signature"`, `2 artifacts of type "application/spdx+json"`}, texts, "an attestation of another image is not beside this one")
}
