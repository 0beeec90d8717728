package imagespec

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	hash   = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sha512 = "sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func descriptorOf(mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, mediaType, hash)
}

// manifest returns one with a config and a layer of these types, and more fields.
func manifest(config, layer, more string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, ociManifest, descriptorOf(config), descriptorOf(layer), more)
}

// What an engine takes for an image's is taken: Docker the untyped ones
// (distribution/registry.go in moby), containerd all that begins as a layer's type does
// (core/images/mediatypes.go), podman any layer.
func TestManifestTakes(t *testing.T) {
	for _, config := range []string{
		ociConfig, "application/vnd.docker.container.image.v1+json", "application/octet-stream", "application/json", "text/html", "",
		"text/plain", "application/x-unknown", "application/vnd.docker.container.image.rootfs.v1+json",
	} {
		m, err := Manifest(manifest(config, ociLayer, ""))
		require.NoError(t, err, config)
		assert.Equal(t, config, string(m.Config.MediaType))
	}
	for _, layer := range []string{
		ociLayer, "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar+xz",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar.gz", "application/vnd.docker.image.rootfs.diff.tar.gzip+x",
		"application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.erofs.layer.v1",
		"application/octet-stream", "application/x-gzip", "application/x-tar", "application/tar+gzip", "application/json", "text/html", "",
	} {
		m, err := Manifest(manifest(ociConfig, layer, ""))
		require.NoError(t, err, layer)
		require.NoError(t, CheckLayer(m.Layers[0]), layer)
		assert.Equal(t, layer, string(m.Layers[0].MediaType))
	}
	for _, artifactType := range []string{"", ociConfig, "application/vnd.docker.container.image.v1+json"} {
		_, err := Manifest(manifest(ociConfig, ociLayer, fmt.Sprintf(`,"artifactType":%q`, artifactType)))
		require.NoError(t, err, artifactType)
	}
}

// What is no image has a type of an artifact's somewhere.
func TestManifestOfAnArtifact(t *testing.T) {
	for name, c := range map[string]struct{ config, layer, more, says string }{
		"Helm":              {"application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "", `config media type "application/vnd.cncf.helm.config.v1+json"`},
		"ORAS":              {"application/vnd.oci.empty.v1+json", "application/vnd.oci.image.layer.v1.tar", "", "application/vnd.oci.empty.v1+json"},
		"ORAS with a type":  {"application/vnd.oci.empty.v1+json", "text/plain", `,"artifactType":"application/vnd.acme.rocket"`, `artifact type "application/vnd.acme.rocket"`},
		"artifact type":     {ociConfig, ociLayer, `,"artifactType":"application/spdx+json"`, "application/spdx+json"},
		"cosign signature":  {ociConfig, "application/vnd.dev.cosign.simplesigning.v1+json", "", `media type "application/vnd.dev.cosign.simplesigning.v1+json" of layer 0`},
		"cosign SBOM":       {ociConfig, "text/spdx+json", "", "text/spdx+json"},
		"SBOM":              {ociConfig, "application/spdx+json", "", "application/spdx+json"},
		"CycloneDX in XML":  {"application/json", "application/cyclonedx+xml", "", "cyclonedx"},
		"in-toto":           {ociConfig, "application/vnd.in-toto+json", "", "application/vnd.in-toto+json"},
		"sigstore bundle":   {"application/vnd.oci.empty.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json", "", "empty"},
		"Docker plugin":     {"application/vnd.docker.plugin.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip", "", "plugin"},
		"WebAssembly":       {"application/vnd.wasm.config.v0+json", "application/wasm", "", "wasm"},
		"WebAssembly layer": {ociConfig, "application/wasm", "", "wasm"},
		"BuildKit's cache":  {"application/vnd.buildkit.cacheconfig.v0", ociLayer, "", "cacheconfig"},
	} {
		_, err := Manifest(manifest(c.config, c.layer, c.more))
		require.ErrorIs(t, err, ErrArtifact, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.NotErrorIs(t, err, ErrMalformed, name)
	}
}

func TestCheckLayer(t *testing.T) {
	for mediaType, says := range map[string]string{
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":           "may not be distributed",
		"application/vnd.docker.image.rootfs.foreign.diff.tar":                "may not be distributed",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":        "may not be distributed",
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted":               "is encrypted",
		"application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted":         "is encrypted",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+x+encrypted": "may not be distributed",
	} {
		m, err := Manifest(manifest(ociConfig, mediaType, ""))
		require.NoError(t, err, mediaType)
		assert.ErrorContains(t, CheckLayer(m.Layers[0]), says)
	}
}

// A document that one reader could take for this and another for that is neither.
func TestAmbiguous(t *testing.T) {
	good := string(manifest(ociConfig, ociLayer, ""))
	const goodIndex = `{"schemaVersion":2,"manifests":[]}`
	for name, raw := range map[string]string{
		"manifests":                      string(manifest(ociConfig, ociLayer, `,"manifests":[]`)),
		"manifests, null":                string(manifest(ociConfig, ociLayer, `,"manifests":null`)),
		"fsLayers":                       string(manifest(ociConfig, ociLayer, `,"fsLayers":[]`)),
		"history":                        string(manifest(ociConfig, ociLayer, `,"history":[]`)),
		"layers twice":                   string(manifest(ociConfig, ociLayer, `,"layers":[]`)),
		"layers in two cases":            string(manifest(ociConfig, ociLayer, `,"Layers":[]`)),
		"layers in another case before":  strings.Replace(good, `"layers"`, `"LAYERS":[],"layers"`, 1),
		"layers in letters like Latin":   string(manifest(ociConfig, ociLayer, `,"layer`+"\u017f"+`":[]`)),
		"config twice":                   string(manifest(ociConfig, ociLayer, `,"config":`+descriptorOf(ociConfig))),
		"type twice":                     string(manifest(ociConfig, ociLayer, `,"mediaType":"x"`)),
		"digest twice, of the config":    strings.Replace(good, `"digest"`, `"Digest":"`+hash+`","digest"`, 1),
		"digest twice, of a layer":       strings.Replace(good, `,"size":1}]`, `,"size":1,"DIGEST":"x"}]`, 1),
		"size twice, of a layer":         strings.Replace(good, `,"size":1}]`, `,"size":1,"size":2}]`, 1),
		"artifact type in another case":  string(manifest(ociConfig, ociLayer, `,"ArtifactType":"x"`)),
		"schema version in another case": string(manifest(ociConfig, ociLayer, `,"schemaversion":1`)),
	} {
		require.NotEqual(t, good, raw, name)
		_, err := Manifest([]byte(raw))
		require.ErrorContains(t, err, "ambiguous", name)
		assert.NotErrorIs(t, err, ErrMalformed, name)
	}
	for _, raw := range []string{
		`{"schemaVersion":2,"manifests":[],"layers":[]}`, `{"schemaVersion":2,"manifests":[],"config":{}}`, `{"schemaVersion":2,"manifests":[],"config":null}`,
		`{"schemaVersion":2,"manifests":[],"fsLayers":[]}`, `{"schemaVersion":2,"manifests":[],"Manifests":[]}`, `{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","OS":"windows"}}]}`,
	} {
		_, err := Index([]byte(raw))
		require.ErrorContains(t, err, "ambiguous", raw)
	}
	// What is not read, and what has names of its own, may have any.
	_, err := Manifest(manifest(ociConfig, ociLayer, `,"annotations":{"a":"1","A":"2"},"x":1,"X":2`))
	require.NoError(t, err)
	_, err = Index([]byte(goodIndex))
	require.NoError(t, err)
}

// Each of these is said as it is.
func TestManifestRefuses(t *testing.T) {
	good := string(manifest(ociConfig, ociLayer, ""))
	size := func(n string) string { return strings.Replace(good, `"size":1`, `"size":`+n, 1) }
	for name, c := range map[string]struct {
		raw, says string
		malformed bool
	}{
		"a negative size":         {size("-1"), "config: " + hash + ": its size is negative: -1 bytes", false},
		"of a layer":              {strings.Replace(good, `"size":1}]`, `"size":-7}]`, 1), "layer 0: " + hash + ": its size is negative: -7 bytes", false},
		"a huge size":             {size("4611686018427387904"), "a size of 4611686018427387904 bytes is not plausible", false},
		"a size beyond int64":     {size("9223372036854775808"), `its field "config.size" is a number 9223372036854775808`, true},
		"a size with an exponent": {size("1e30"), `its field "config.size" is a number 1e30`, true},
		"a size that is a text":   {size(`"1"`), `its field "config.size" is a string`, true},
		"sha512 config":           {strings.Replace(good, hash, sha512, 1), "config: the digest \"" + sha512[:50], false},
		"sha512":                  {strings.Replace(good, hash, sha512, 1), "is not sha256: other algorithms are not supported", false},
		"sha512 layer":            {strings.Replace(good, hash+`","size":1}]`, sha512+`","size":1}]`, 1), "layer 0: the digest", false},
		"a digest too short":      {strings.Replace(good, hash, hash[:70], 1), "is not sha256: and 64 hexadecimal digits", false},
		"a digest in upper case":  {strings.Replace(good, hash, "sha256:"+strings.ToUpper(hash[7:]), 1), "in lower case", false},
		"no digest":               {strings.Replace(good, hash, "x", 1), "is not a digest", false},
		"no config":               {`{"schemaVersion":2,"layers":[]}`, "it has no config", false},
		"schema version 1":        {`{"schemaVersion":1,"fsLayers":[]}`, "schema version 1: push the image again", false},
		"schema version 3":        {`{"schemaVersion":3}`, "schema version 3 is not supported", false},
		"an index":                {`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, "an index needs a platform chosen first", false},
		"an index without a type": {`{"schemaVersion":2,"manifests":[]}`, `also has "manifests"`, false},
		"a list":                  {`[]`, "a JSON array, not an object", true},
		"a page":                  {`<html>`, "not JSON", true},
		"nothing":                 {``, "not JSON", true},
		"layers that are a text":  {`{"schemaVersion":2,"layers":"x"}`, `its field "layers" is a string`, true},
		"too many layers":         {`{"schemaVersion":2,"config":` + descriptorOf(ociConfig) + `,"layers":[` + strings.Repeat(descriptorOf(ociLayer)+",", MaxLayers) + descriptorOf(ociLayer) + `]}`, "501 layers, more than 500: no engine loads that many", false},
	} {
		_, err := Manifest([]byte(c.raw))
		require.ErrorContains(t, err, c.says, name)
		assert.Equal(t, c.malformed, strings.HasPrefix(err.Error(), ErrMalformed.Error()), name)
	}
	_, err := Manifest([]byte(`{"schemaVersion":2,"config":` + descriptorOf(ociConfig) + `,"layers":[` + strings.Repeat(descriptorOf(ociLayer)+",", MaxLayers-1) + descriptorOf(ociLayer) + `]}`))
	require.NoError(t, err)
}

// One entry that cannot be used does not make the others unusable.
func TestIndex(t *testing.T) {
	entries, err := Index([]byte(`{"schemaVersion":2,"manifests":[` + descriptorOf(ociManifest) + `,{"mediaType":"m","digest":"` + sha512 + `"},{"digest":"` + hash + `","size":-1},{}]}`))
	require.NoError(t, err)
	require.Len(t, entries, 4)
	require.NoError(t, entries[0].Err)
	assert.Equal(t, hash, entries[0].Digest.String())
	for i, says := range []string{1: "not sha256", 2: "negative", 3: "not a digest"} {
		if says != "" {
			assert.ErrorContains(t, entries[i].Err, says)
			assert.Zero(t, entries[i].Digest)
		}
	}
	_, err = Index([]byte(`{"schemaVersion":1}`))
	require.Error(t, err)
	_, err = Index([]byte(`{"mediaType":"` + ociManifest + `"}`))
	require.ErrorContains(t, err, "is not an index's")
}

// An entry with a field of a wrong kind has what could be read, but no platform; other
// fields of the index may be of any kind. None of it may be ambiguous.
func TestIndexOfOddFields(t *testing.T) {
	entries, err := Index([]byte(`{"artifactType":[],"annotations":7,"manifests":[{"digest":[]},{"mediaType":"m","digest":"` + hash + `","platform":{"architecture":"arm64","os":7},"size":"?"},7]}`))
	require.NoError(t, err)
	require.Len(t, entries, 3)
	for i, want := range []Entry{{}, {Descriptor: v1.Descriptor{MediaType: "m", Digest: v1.Hash{Algorithm: "sha256", Hex: hash[7:]}}}, {}} {
		require.ErrorIs(t, entries[i].Err, ErrMalformed)
		assert.Equal(t, want.Descriptor, entries[i].Descriptor)
	}
	for _, entry := range []string{`{"digest":"` + hash + `","digest":"` + sha512 + `","size":"?"}`, `{"Digest":"` + hash + `"}`, `{"digest":[],"Digest":"` + hash + `"}`} {
		_, err := Index([]byte(`{"manifests":[` + entry + `]}`))
		require.ErrorContains(t, err, "ambiguous", entry)
	}
}

// Of a config no more is read than is needed, whatever the rest looks like.
func TestConfig(t *testing.T) {
	const rootfs = `"rootfs":{"type":"layers","diff_ids":["` + hash + `"]}`
	for _, more := range []string{
		``, `"config":{"Entrypoint":"sh -c x"},`, `"config":{"Cmd":"sh","Env":null,"ExposedPorts":["80/tcp"],"Labels":[],"Healthcheck":7},`,
		`"config":null,`, `"config":[],`, `"config":"x",`, `"container_config":1,`, `"created":"yesterday",`, `"created":7,`, `"created":null,`, `"author":{},`, `"history":{},`, `"history":[1,"x",{"created":"?"}],`,
		`"os.features":"x",`, `"Rootfs_type":1,`,
	} {
		c, err := Config([]byte(`{"os":"linux","architecture":"arm64","variant":"v8","os.version":"1",` + more + rootfs + `}`))
		require.NoError(t, err, more)
		assert.Equal(t, "linux/arm64/v8:1", c.Platform.String())
		require.Len(t, c.DiffIDs, 1)
		assert.Equal(t, hash, c.DiffIDs[0].String())
	}
	for _, platform := range []string{``, `"os":null,"architecture":7,"variant":[],`, `"os":{},`} {
		c, err := Config([]byte("{" + platform + rootfs + "}"))
		require.NoError(t, err, platform)
		assert.Zero(t, c.Platform)
	}
	for raw, says := range map[string]string{
		`{}`: "it has no rootfs", `{"rootfs":null}`: "it has no rootfs", `{"rootfs":"x"}`: `its field "rootfs" is a string`, `[]`: "a JSON array", ``: "not JSON",
		`{"rootfs":{"diff_ids":["x"]}}`: "diff_ids 0", `{"rootfs":{"diff_ids":["` + sha512 + `"]}}`: "not sha256", `{` + rootfs + `,"RootFS":{}}`: "ambiguous",
		`{"rootfs":{"diff_ids":[],"Diff_IDs":[]}}`: "ambiguous",
	} {
		_, err := Config([]byte(raw))
		require.ErrorContains(t, err, says, raw)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(manifest(ociConfig, ociLayer, ""))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Manifest(raw)
		if err == nil {
			require.LessOrEqual(t, len(m.Layers), MaxLayers)
			require.NotEmpty(t, m.Config.Digest.Hex)
			_, err = Index(raw)
			require.Error(t, err, "a document is one or the other")
		}
	})
}

// Memory and time are in proportion to what an image can have, not to how many values
// fit into so many bytes.
func TestManyValues(t *testing.T) {
	for _, unit := range []string{`{}`, `[]`, `1`, `""`, `{"annotations":{}}`} {
		many := strings.Repeat(unit+",", maxValues) + unit
		for name, read := range map[string]func() error{
			"layers": func() error {
				_, err := Manifest([]byte(`{"schemaVersion":2,"config":{},"layers":[` + many + `]}`))
				return err
			},
			"manifests": func() error { _, err := Index([]byte(`{"schemaVersion":2,"manifests":[` + many + `]}`)); return err },
			"diff_ids":  func() error { _, err := Config([]byte(`{"rootfs":{"diff_ids":[` + many + `]}}`)); return err },
		} {
			require.ErrorContains(t, read(), "values, more than 131072", "%s %s", unit, name)
		}
	}
	// As many as there may be, and commas in strings are none.
	entry := `{"digest":"sha256:` + strings.Repeat("a", 64) + `","annotations":{"a":"\",{` + strings.Repeat(",", maxValues) + `\\"}}`
	entries, err := Index([]byte(`{"schemaVersion":2,"manifests":[` + entry + strings.Repeat(",{}", maxValues-10) + `]}`))
	require.NoError(t, err)
	assert.Len(t, entries, maxValues-9)
}
