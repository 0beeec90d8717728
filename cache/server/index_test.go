package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// platformOf reads OS/ARCH/VARIANT.
func platformOf(t *testing.T, text string) v1.Platform {
	t.Helper()
	p, err := v1.ParsePlatform(text)
	require.NoError(t, err)
	return *p
}

// build is an image for a platform, which is not stocked yet.
type build struct {
	platform         v1.Platform
	manifest, config []byte
	source           blobs
}

func newBuild(t *testing.T, platform string, layers ...string) build {
	t.Helper()
	b := build{platform: platformOf(t, platform)}
	img, source := makeImage(t, layers...)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = b.platform.OS, b.platform.Architecture, b.platform.Variant
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	b.source = source
	b.manifest, err = img.RawManifest()
	require.NoError(t, err)
	b.config, err = img.RawConfigFile()
	require.NoError(t, err)
	return b
}

// indexOf returns an index that lists builds, and indexes (without a platform).
func indexOf(t *testing.T, name string, listed ...any) []byte {
	t.Helper()
	type descriptor struct {
		MediaType types.MediaType `json:"mediaType"`
		Digest    string          `json:"digest"`
		Size      int             `json:"size"`
		Platform  *v1.Platform    `json:"platform,omitempty"`
	}
	var manifests []descriptor
	for _, l := range listed {
		switch l := l.(type) {
		case build:
			manifests = append(manifests, descriptor{types.DockerManifestSchema2, sha256Of(l.manifest), len(l.manifest), &l.platform})
		case []byte:
			manifests = append(manifests, descriptor{types.OCIImageIndex, sha256Of(l), len(l), nil})
		}
	}
	list, err := json.Marshal(manifests)
	require.NoError(t, err)
	return fmt.Appendf(nil, "{ \"schemaVersion\":2, \"mediaType\":%q, \"manifests\":%s,\n \"annotations\":{\"name\":%q} }", types.OCIImageIndex, list, name)
}

// put stocks a build that was found through indexes.
func (s *shelf) put(name, ref string, run int64, b build, indexes ...[]byte) {
	s.t.Helper()
	image, err := tarball.NewImage(ref, b.manifest, b.config, indexes...)
	require.NoError(s.t, err)
	_, err = s.dir.Put(s.t.Context(), name+".tar", image, b.source, &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}})
	require.NoError(s.t, err)
}

const team = "/v2/registry.test/team/image/"

// requireManifest verifies that a tag or digest names this document.
func (c *client) requireManifest(want []byte, ref string) {
	c.t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		got := c.do(method, team+"manifests/"+ref)
		require.Equal(c.t, http.StatusOK, got.StatusCode, "%s: %s", ref, got.body)
		require.Equal(c.t, sha256Of(want), got.Header.Get("Docker-Content-Digest"), ref)
		require.Equal(c.t, fmt.Sprint(len(want)), got.Header.Get("Content-Length"))
		var typed struct{ MediaType string }
		require.NoError(c.t, json.Unmarshal(want, &typed))
		require.Equal(c.t, typed.MediaType, got.Header.Get("Content-Type"))
		if method == http.MethodGet {
			require.Equal(c.t, string(want), string(got.body))
		}
	}
}

func (c *client) requireNoManifest(refs ...string) {
	c.t.Helper()
	for _, ref := range refs {
		c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", team+"manifests/"+ref)
	}
}

// Each client gets the image for its platform, or none.
func TestIndex(t *testing.T) {
	amd, arm := newBuild(t, "linux/amd64", "a", "x"), newBuild(t, "linux/arm64", "a", "y")
	index := indexOf(t, "index", amd, arm)
	s := newShelf(t)
	s.put("amd", testRef, 1, amd, index)
	c := connect(s)
	c.requireManifest(index, "v1")
	c.requireManifest(index, sha256Of(index))
	c.requireServed(index, team+"blobs/"+sha256Of(index))
	c.requireManifest(amd.manifest, sha256Of(amd.manifest))
	c.requireNoManifest(sha256Of(arm.manifest), "v2")
	pullFor := func(ref, platform string) (v1.Image, error) {
		return pull(t, c.host+"/registry.test/team/image"+ref, remote.WithPlatform(platformOf(t, platform)))
	}
	for _, ref := range []string{":v1", "@" + sha256Of(index)} {
		got, err := pullFor(ref, "linux/amd64")
		require.NoError(t, err)
		digest, err := got.Digest()
		require.NoError(t, err)
		assert.Equal(t, sha256Of(amd.manifest), digest.String())
		_, err = pullFor(ref, "linux/arm64")
		require.ErrorContains(t, err, "MANIFEST_UNKNOWN", "never another platform's")
	}
	s.put("arm", testRef, 1, arm, index)
	for platform, want := range map[string]build{"linux/amd64": amd, "linux/arm64": arm} {
		got, err := pullFor(":v1", platform)
		require.NoError(t, err)
		digest, err := got.Digest()
		require.NoError(t, err)
		assert.Equal(t, sha256Of(want.manifest), digest.String())
	}
	assert.Equal(t, []string{`["v1"]`}, c.list(team+"tags/list", "tags"))
	assert.Empty(t, c.reported.take())
}

func TestNestedIndex(t *testing.T) {
	amd, arm := newBuild(t, "linux/amd64", "a"), newBuild(t, "linux/arm64", "b")
	inner := indexOf(t, "inner", amd, arm)
	outer := indexOf(t, "outer", inner)
	s := newShelf(t)
	s.put("amd", testRef, 1, amd, outer, inner)
	c := connect(s)
	c.requireManifest(outer, "v1")
	c.requireManifest(outer, sha256Of(outer))
	c.requireManifest(inner, sha256Of(inner))
	c.requireManifest(amd.manifest, sha256Of(amd.manifest))
	c.requireServed(inner, team+"blobs/"+sha256Of(inner))
	for _, platforms := range [][]v1.Platform{{platformOf(t, "linux/arm64")}, {platformOf(t, "linux/amd64"), platformOf(t, "linux/arm64")}} {
		c := connectWith(s, Options{Platforms: platforms})
		c.requireNoManifest("v1", sha256Of(outer), sha256Of(inner))
	}
	c = connectWith(s, Options{Platforms: []v1.Platform{platformOf(t, "linux/amd64")}})
	c.requireManifest(outer, "v1")

	// What is in an index that is not stocked is not known.
	s.put("other", "registry.test/team/image:v2", 1, amd, indexOf(t, "sparse", indexOf(t, "elsewhere", arm), inner), inner)
	c = connectWith(s, Options{Platforms: []v1.Platform{platformOf(t, "linux/amd64")}})
	c.requireManifest(outer, "v1")
	got := c.get(team + "manifests/v2")
	assert.Equal(t, http.StatusOK, got.StatusCode, "amd64 itself is there")
	connectWith(s, Options{Platforms: []v1.Platform{platformOf(t, "linux/s390x")}}).requireNoManifest("v2")
}

// Which tarballs of one reference there are, and what its tag is then. The last one is
// the newest.
func TestTag(t *testing.T) {
	amd, arm := newBuild(t, "linux/amd64", "a"), newBuild(t, "linux/arm64", "b")
	newAmd, newArm := newBuild(t, "linux/amd64", "c"), newBuild(t, "linux/arm64", "d")
	v6, v7 := newBuild(t, "linux/arm/v6", "e"), newBuild(t, "linux/arm/v7", "f")
	armOfOld, v8 := newBuild(t, "linux/arm", "f", "g"), newBuild(t, "linux/arm64/v8", "h")
	index, next := indexOf(t, "index", amd, arm), indexOf(t, "next", newAmd, newArm)
	same := indexOf(t, "same", amd, newArm) // one platform's image is the one from before
	type tar struct {
		build
		indexes [][]byte
	}
	of := func(b build, indexes ...[]byte) tar { return tar{b, indexes} }
	for name, c := range map[string]struct {
		stocked []tar
		tag     []byte // nil: not found
		found   [][]byte
		absent  [][]byte
	}{
		"one manifest":                    {[]tar{of(amd)}, amd.manifest, [][]byte{amd.manifest}, [][]byte{index, arm.manifest}},
		"newer manifest":                  {[]tar{of(amd), of(newAmd)}, newAmd.manifest, [][]byte{amd.manifest, newAmd.manifest}, nil},
		"platforms without an index":      {[]tar{of(amd), of(arm)}, nil, [][]byte{amd.manifest, arm.manifest}, nil},
		"variants without an index":       {[]tar{of(v6), of(v7)}, nil, [][]byte{v6.manifest, v7.manifest}, nil},
		"one variant by two names":        {[]tar{of(v7), of(armOfOld)}, armOfOld.manifest, nil, nil},
		"arm64 by two names":              {[]tar{of(v8), of(arm)}, arm.manifest, nil, nil},
		"an index":                        {[]tar{of(amd, index)}, index, [][]byte{index, amd.manifest}, [][]byte{arm.manifest}},
		"both platforms":                  {[]tar{of(amd, index), of(arm, index)}, index, [][]byte{index, amd.manifest, arm.manifest}, nil},
		"the newest has none, but is in":  {[]tar{of(amd, index), of(arm)}, index, [][]byte{index, amd.manifest, arm.manifest}, nil},
		"the newest has one":              {[]tar{of(arm), of(amd, index)}, index, [][]byte{index, arm.manifest}, nil},
		"moved":                           {[]tar{of(amd, index), of(newAmd, next)}, next, [][]byte{index, next, amd.manifest, newAmd.manifest}, [][]byte{newArm.manifest}},
		"moved for one platform so far":   {[]tar{of(amd, index), of(arm, index), of(newAmd, next)}, next, [][]byte{index, arm.manifest}, [][]byte{newArm.manifest}},
		"moved, one is as before":         {[]tar{of(amd, index), of(arm, index), of(amd, same)}, same, [][]byte{index, amd.manifest, arm.manifest}, [][]byte{newArm.manifest}},
		"moved to a manifest":             {[]tar{of(amd, index), of(newAmd)}, newAmd.manifest, [][]byte{index, amd.manifest}, nil},
		"moved to a manifest, or not":     {[]tar{of(arm, index), of(newAmd)}, nil, [][]byte{index, arm.manifest, newAmd.manifest}, nil},
		"moved from manifests to indexes": {[]tar{of(amd), of(arm), of(newAmd, next)}, next, [][]byte{next, amd.manifest, arm.manifest}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			for i, b := range c.stocked {
				s.put(fmt.Sprint("image", i), testRef, int64(i+1), b.build, b.indexes...)
			}
			s.put("other", "registry.test/team/other:v1", 9, v6, indexOf(t, "other", v6))
			client := connect(s)
			if c.tag == nil {
				client.requireNoManifest("v1")
				assert.Equal(t, []string{`[]`}, client.list(team+"tags/list", "tags"))
			} else {
				client.requireManifest(c.tag, "v1")
				assert.Equal(t, []string{`["v1"]`}, client.list(team+"tags/list", "tags"))
			}
			for _, want := range c.found {
				client.requireManifest(want, sha256Of(want))
			}
			for _, not := range c.absent {
				client.requireNoManifest(sha256Of(not))
			}
			assert.Empty(t, client.reported.take())
		})
	}
}

// An index is served where each of the clients' platforms that it lists is stocked.
func TestPlatforms(t *testing.T) {
	amd, arm, v7 := newBuild(t, "linux/amd64", "a"), newBuild(t, "linux/arm64", "b"), newBuild(t, "linux/arm/v7", "c")
	v3, v6, windows := newBuild(t, "linux/amd64/v3", "d"), newBuild(t, "linux/arm/v6", "e"), newBuild(t, "windows/amd64", "f")
	attestation := newBuild(t, "unknown/unknown", "g")
	for name, c := range map[string]struct {
		listed, stocked []build
		platforms       []string
		want            bool
	}{
		"none asked":             {[]build{amd, arm}, []build{amd}, nil, true},
		"it is there":            {[]build{amd, arm}, []build{amd}, []string{"linux/amd64"}, true},
		"it is not":              {[]build{amd, arm}, []build{amd}, []string{"linux/arm64"}, false},
		"one of two":             {[]build{amd, arm}, []build{amd}, []string{"linux/amd64", "linux/arm64"}, false},
		"both":                   {[]build{amd, arm}, []build{amd, arm}, []string{"linux/amd64", "linux/arm64"}, true},
		"one is not listed":      {[]build{amd}, []build{amd}, []string{"linux/amd64", "linux/arm64"}, true},
		"neither is listed":      {[]build{v7}, []build{v7}, []string{"linux/amd64", "linux/arm64"}, true},
		"another system's":       {[]build{amd, windows}, []build{amd}, []string{"linux/amd64"}, true},
		"attestations":           {[]build{amd, attestation}, []build{amd}, []string{"linux/amd64"}, true},
		"v8 goes without saying": {[]build{amd, arm}, []build{amd}, []string{"linux/arm64/v8"}, false},
		"so does v7":             {[]build{v7, v6}, []build{v7}, []string{"linux/arm"}, true},
		"the plain one":          {[]build{v3, amd}, []build{amd}, []string{"linux/amd64"}, true},
		"not the plain one":      {[]build{v3, amd}, []build{v3}, []string{"linux/amd64"}, false},
		"a variant":              {[]build{v3, amd}, []build{v3}, []string{"linux/amd64/v3"}, true},
		"it may be either":       {[]build{v3, amd}, []build{v3}, []string{"linux/amd64/v2"}, false},
		"either is there":        {[]build{v3, amd}, []build{v3, amd}, []string{"linux/amd64/v2"}, true},
		"the first of two":       {[]build{amd, newBuild(t, "linux/amd64", "z")}, []build{amd}, []string{"linux/amd64"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			listed := make([]any, len(c.listed))
			for i, b := range c.listed {
				listed[i] = b
			}
			index := indexOf(t, name, listed...)
			for i, b := range c.stocked {
				s.put(fmt.Sprint("image", i), testRef, 0, b, index)
			}
			var platforms []v1.Platform
			for _, p := range c.platforms {
				platforms = append(platforms, platformOf(t, p))
			}
			client := connectWith(s, Options{Platforms: platforms})
			if c.want {
				client.requireManifest(index, "v1")
				client.requireManifest(index, sha256Of(index))
			} else {
				client.requireNoManifest("v1", sha256Of(index))
				assert.Contains(t, string(client.get(team+"manifests/v1").body), "is not stocked for all platforms")
			}
			for _, b := range c.stocked {
				client.requireManifest(b.manifest, sha256Of(b.manifest))
			}
			// A platform that comes makes it whole, and one that goes does not leave it so.
			for i, b := range c.listed {
				s.put(fmt.Sprint("more", i), "registry.test/team/image:more", 0, b, index)
			}
			client.requireManifest(index, "v1")
		})
	}
}

// A client that has got the index gets its platform's manifest, though the tarball was
// replaced meanwhile.
func TestIndexIsHeld(t *testing.T) {
	amd, next := newBuild(t, "linux/amd64", "a"), newBuild(t, "linux/amd64", "b")
	index := indexOf(t, "index", amd)
	s := newShelf(t)
	s.put("image", testRef, 1, amd, index)
	c := connect(s)
	c.requireManifest(index, "v1")
	s.put("image", testRef, 2, next, indexOf(t, "next", next))
	c.requireManifest(indexOf(t, "next", next), "v1")
	c.requireManifest(index, sha256Of(index))
	c.requireManifest(amd.manifest, sha256Of(amd.manifest))
	layer, raw := layerOf(t, "a")
	c.requireServed(raw, team+"blobs/"+layer)
}

// NewSingle's tag names the image, for an engine that has this platform, and nothing else.
func TestNewSingleHasNoIndex(t *testing.T) {
	amd := newBuild(t, "linux/amd64", "a")
	index := indexOf(t, "index", amd)
	s := newShelf(t)
	s.put("image", testRef, 1, amd, index)
	file := s.open("image.tar")
	defer file.Close()
	c := &client{t: t, host: serve(t, NewSingle(file, "own", "t", nil))}
	c.requireServed(amd.manifest, "/v2/own/manifests/t")
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/own/manifests/"+sha256Of(index))
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+sha256Of(index))
}

// In an index only what is needed is read: the rest may be of any kind.
func TestOddIndex(t *testing.T) {
	amd := newBuild(t, "linux/amd64", "a")
	index := fmt.Appendf(nil, `{"manifests":[{"digest":[]},{"digest":%q,"platform":{"os":7},"size":"?"}],"annotations":[]}`, sha256Of(amd.manifest))
	s := newShelf(t)
	s.put("image", testRef, 1, amd, index)
	got := connectWith(s, Options{Platforms: []v1.Platform{amd.platform}}).get(team + "manifests/v1")
	assert.Equal(t, http.StatusOK, got.StatusCode)
	assert.Equal(t, string(index), string(got.body))
	assert.Equal(t, string(types.OCIImageIndex), got.Header.Get("Content-Type"))
}
