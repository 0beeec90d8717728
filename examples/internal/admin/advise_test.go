package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/examples/internal/jsondoc"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func TestAdviseJSONDocument(t *testing.T) {
	m := &measurement{record: &advised{}}
	m.rates = advise.Rates{Storage: &advise.Storage{Look: 1}, Registry: &advise.Registry{}, Engine: &advise.Engine{Ask: 1, PullPresent: 1, Pulling: &advise.Pulling{}}, Root: &advise.Root{}}
	m.fillRates()
	values := []string{directoryPart, registryPart, enginePart, rootPart, inSeconds, perSecond,
		advise.Pull, advise.LoadImage, advise.ServeCache, advise.KeepLoaded, advise.EngineRoot, advise.DockerLoad}
	for _, r := range m.record.Rates {
		values = append(values, r.Name)
	}
	jsondoc.Check(t, "../../JSON.md", "cache-admin advise", advised{}, values...)
}

// No list is null, whatever was measured.
func TestAdviseJSONHasNoNull(t *testing.T) {
	image, _, err := tarballtest.Image("registry.test/a:1")
	require.NoError(t, err)
	a := &Advisor{Fleet: advise.Fleet{JobsPerDay: 1}}
	m := &measurement{record: &advised{Missing: []string{}, Samples: []advisedSample{}}}
	ways, err := advise.Predict(m.rates, advise.Image{}, a.Fleet)
	require.NoError(t, err)
	m.fill(ways, &subject{image: image}, "dir", a, time.Second)
	raw, err := json.Marshal(m.record)
	require.NoError(t, err)
	assert.NotContains(t, string(raw), "null")
	assert.Len(t, m.record.Ways, 6)
	assert.Contains(t, m.record.text(), "\npull: not possible: not measured: registry, engine\n")
}

// Docker's client asks the engine that is measured, whatever its own settings say.
func TestDockerAsks(t *testing.T) {
	bin, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	script := "#!/bin/sh\necho \"$*|$DOCKER_HOST|$DOCKER_TLS|$DOCKER_TLS_VERIFY|$DOCKER_CERT_PATH\" >>" + seen + "\n[ \"$3\" = a:1 ] || { echo no such image >&2; exit 1; }\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(script), 0o755))
	for name, value := range map[string]string{"DOCKER_HOST": "tcp://another:1", "DOCKER_TLS": "1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/other"} {
		t.Setenv(name, value)
	}
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	require.NoError(t, dockerAsks(loader.Host{Address: "unix:///a.sock"})(t.Context(), "a:1"))
	require.NoError(t, dockerAsks(loader.Host{Address: "tcp://a:2376", TLS: true, CertDir: "/certs"})(t.Context(), "a:1"))
	require.NoError(t, dockerAsks(loader.Host{Address: "https://a:2376", TLS: true, SkipVerify: true})(t.Context(), "a:1"))
	require.ErrorContains(t, dockerAsks(loader.Host{Address: "unix:///a.sock"})(t.Context(), "b:1"), "no such image")
	got, err := os.ReadFile(seen)
	require.NoError(t, err)
	assert.Equal(t, "image inspect a:1|unix:///a.sock|||\nimage inspect a:1|tcp://a:2376|1|1|/certs\n"+
		"image inspect a:1|tcp://a:2376|1||\nimage inspect b:1|unix:///a.sock|||\n", string(got))
	assert.Nil(t, dockerAsks(loader.Host{Address: "containerd:///a.sock"}))
	t.Setenv("PATH", t.TempDir())
	assert.Nil(t, dockerAsks(loader.Host{Address: "unix:///a.sock"}))
}

func TestTagged(t *testing.T) {
	for ref, want := range map[string]string{
		"alpine": "alpine:latest", "r.test:5000/a/b": "r.test:5000/a/b:latest", "r.test/a:1": "r.test/a:1",
		"r.test/a:1@sha256:" + hex64: "r.test/a:1", "r.test/a@sha256:" + hex64: "r.test/a:latest", "UPPER:": "UPPER:",
	} {
		assert.Equal(t, want, tagged(ref), ref)
	}
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestGrowthFile(t *testing.T) {
	assert.Equal(t, "a/ways-jobs.svg", growthFile("a/ways.svg"))
}

func TestSecondsText(t *testing.T) {
	for s, want := range map[float64]string{0: "0", 1e-7: "0", 0.00123: "1.23 ms", 0.5: "0.5 s", 99: "99 s", 100: "1m40s", 1e12: "1e+12 s"} {
		assert.Equal(t, want, secondsText(s))
	}
}
