package interop

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry"
)

// conformance names the program of the distribution specification's own test
// (https://github.com/opencontainers/distribution-spec/tree/main/conformance): .ci/run
// builds it from its Go module, where that can be had.
const conformance = "DOCKERCACHE_CONFORMANCE"

// What serve-cache serves passes the specification's tests of pulling and of content
// discovery.
func TestConformance(t *testing.T) {
	program := os.Getenv(conformance)
	if program == "" {
		t.Skipf("%s does not name the program of the distribution specification's conformance test", conformance)
	}
	s := newStore(t)
	layer, err := imagetest.Layer(s.id+"conformance", 1<<16)
	require.NoError(t, err)
	image, err := imagetest.Image(layer)
	require.NoError(t, err)
	remote, err := registry.New(nil).Resolve(t.Context(), own, pushNested(t, s.server, "team/image:v1", image))
	require.NoError(t, err)
	_, err = s.dir.Stock(t.Context(), "v1_main.tar", "registry.example/team/image:v1", remote, nil)
	require.NoError(t, err)
	stocked, err := s.dir.Get(t.Context(), "v1_main.tar")
	require.NoError(t, err)
	defer stocked.Close()
	manifests, blobs := []string{stocked.Image.Digest().String()}, []string{stocked.Image.ConfigDigest().String()}
	for _, index := range stocked.Image.Indexes() {
		manifests = append(manifests, "sha256:"+sha256Hex(index))
	}
	for _, l := range stocked.Image.Layers() {
		blobs = append(blobs, l.Digest.String())
	}
	cmd := exec.Command(program)
	results := t.TempDir()
	cmd.Env = append(os.Environ(),
		"OCI_REGISTRY="+startServe(t, s.dir.Path()), "OCI_TLS=disabled", "OCI_REPO1=registry.example/team/image", "OCI_REPO2=registry.example/team/none", "OCI_RESULTS_DIR="+results,
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
		"OCI_API_BLOBS_DIGEST_HEADER=true", // that of manifests is not seen where nothing is pushed
		"OCI_RO_DATA_TAGS=v1", "OCI_RO_DATA_MANIFESTS="+strings.Join(manifests, " "), "OCI_RO_DATA_BLOBS="+strings.Join(blobs, " "), "OCI_RO_DATA_REFERRERS="+strings.Join(manifests, " "))
	cmd.Dir = results
	out, err := cmd.CombinedOutput()
	t.Logf("%v\n%s", err, out) // without pushes it fails when it writes the last of its reports
	passed := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if name, result, found := strings.Cut(line, ":"); found && strings.TrimSpace(result) == "Pass" {
			passed[strings.Trim(name, ". ")] = true
		}
	}
	for _, api := range []string{
		"OCI Conformance Result", "Ping", "Tag listing", "Blob get", "Blob head", "Referrers",
		"Manifest get by digest", "Manifest get by tag", "Manifest head by digest", "Manifest head by tag",
	} {
		assert.True(t, passed[api], api)
	}
}
