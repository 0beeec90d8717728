package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/enginetest"
)

// writeContext writes what "docker context create" would.
func writeContext(t *testing.T, config, id, meta string) {
	t.Helper()
	dir := filepath.Join(config, "contexts", "meta", id)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o644))
}

func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	config := filepath.Join(home, ".docker")
	require.NoError(t, os.Mkdir(config, 0o755))
	writeContext(t, config, hexID("current"), `{"Name":"current","Endpoints":{"docker":{"Host":"unix:///run/current.sock","SkipTLSVerify":false}}}`)
	writeContext(t, config, hexID("other"), `{"Name":"other","Endpoints":{"docker":{"Host":"tcp://10.0.0.1:2376","SkipTLSVerify":true}}}`)
	writeContext(t, config, hexID("far"), `{"Name":"far","Endpoints":{"docker":{"Host":"ssh://me@far"}}}`)
	require.NoError(t, os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"auths":{},"currentContext":"current"}`), 0o644))
	elsewhere := t.TempDir()
	for name, c := range map[string]struct {
		env  map[string]string
		want Host
		fail string
	}{
		"nothing":                  {env: map[string]string{}, want: Host{Address: DefaultHost}},
		"an empty home":            {env: map[string]string{"HOME": elsewhere}, want: Host{Address: DefaultHost}},
		"currentContext":           {env: map[string]string{"HOME": home}, want: Host{Address: "unix:///run/current.sock"}},
		"DOCKER_CONFIG over HOME":  {env: map[string]string{"HOME": home, "DOCKER_CONFIG": elsewhere}, want: Host{Address: DefaultHost}},
		"DOCKER_CONFIG":            {env: map[string]string{"DOCKER_CONFIG": config}, want: Host{Address: "unix:///run/current.sock"}},
		"DOCKER_CONTEXT over it":   {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "other"}, want: Host{Address: "tcp://10.0.0.1:2376", TLS: true, SkipVerify: true}},
		"the default context":      {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "default"}, want: Host{Address: DefaultHost}},
		"DOCKER_HOST over all":     {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "other", "DOCKER_HOST": "unix:///run/x.sock"}, want: Host{Address: "unix:///run/x.sock"}},
		"over a missing context":   {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "none", "DOCKER_HOST": "tcp://h:1"}, want: Host{Address: "tcp://h:1"}},
		"DOCKER_TLS_VERIFY":        {env: map[string]string{"HOME": home, "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1"}, want: Host{Address: "tcp://h:2376", TLS: true, CertDir: config}},
		"DOCKER_TLS":               {env: map[string]string{"HOME": home, "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS": "1"}, want: Host{Address: "tcp://h:2376", TLS: true, SkipVerify: true, CertDir: config}},
		"both":                     {env: map[string]string{"HOME": home, "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS": "1", "DOCKER_TLS_VERIFY": "1"}, want: Host{Address: "tcp://h:2376", TLS: true, CertDir: config}},
		"DOCKER_CERT_PATH":         {env: map[string]string{"HOME": home, "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"}, want: Host{Address: "tcp://h:2376", TLS: true, CertDir: "/c"}},
		"DOCKER_CERT_PATH alone":   {env: map[string]string{"DOCKER_HOST": "tcp://h:2375", "DOCKER_CERT_PATH": "/c"}, want: Host{Address: "tcp://h:2375"}},
		"http":                     {env: map[string]string{"DOCKER_HOST": "http://h:2375"}, want: Host{Address: "http://h:2375"}},
		"https":                    {env: map[string]string{"DOCKER_HOST": "https://h:2376/"}, want: Host{Address: "https://h:2376/"}},
		"a missing context":        {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "none"}, fail: `no Docker context is called "none"`},
		"a context without a home": {env: map[string]string{"DOCKER_CONTEXT": "other"}, fail: "set HOME or DOCKER_CONFIG"},
		"a context with ssh":       {env: map[string]string{"HOME": home, "DOCKER_CONTEXT": "far"}, fail: "forward the socket (ssh -L) and name that"},
		"ssh":                      {env: map[string]string{"DOCKER_HOST": "ssh://me@far"}, fail: `"ssh://me@far": ssh is not supported: forward the socket`},
		"a path alone":             {env: map[string]string{"DOCKER_HOST": "/run/x.sock"}, fail: "want unix:///PATH or tcp://HOST:PORT"},
		"a relative socket":        {env: map[string]string{"DOCKER_HOST": "unix://run/x.sock"}, fail: "want unix:///PATH"},
		"no host":                  {env: map[string]string{"DOCKER_HOST": "tcp://"}, fail: "want unix:///PATH"},
		"a path after the port":    {env: map[string]string{"DOCKER_HOST": "tcp://h:1/x"}, fail: "want unix:///PATH"},
		"an unknown scheme":        {env: map[string]string{"DOCKER_HOST": "npipe:////./pipe/x"}, fail: "want unix:///PATH"},
		"a password":               {env: map[string]string{"DOCKER_HOST": "tcp://me:secret@h:1"}, fail: "it has a user name or password in it"},
		"http where TLS is wanted": {env: map[string]string{"DOCKER_HOST": "http://h:1", "DOCKER_TLS_VERIFY": "1"}, fail: "http is without TLS"},
		"no URL":                   {env: map[string]string{"DOCKER_HOST": "tcp://h:port"}, fail: "invalid port"},
	} {
		t.Run(name, func(t *testing.T) {
			// A relative path would be below the directory.
			t.Chdir(home)
			got, err := Environment(func(name string) string { return c.env[name] })
			if c.fail != "" {
				require.ErrorIs(t, err, ErrInvalidHost)
				require.ErrorContains(t, err, c.fail)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func hexID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// As "docker context create remote --docker host=…,ca=…,cert=…,key=…" writes it.
func TestContextWithCertificates(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	address, certs, err := engine.ListenTLS()
	require.NoError(t, err)
	config := t.TempDir()
	id := hexID("remote")
	writeContext(t, config, id, `{"Name":"remote","Metadata":{},"Endpoints":{"docker":{"Host":"`+address+`","SkipTLSVerify":false}}}`)
	dir := filepath.Join(config, "contexts", "tls", id, "docker")
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	require.NoError(t, os.CopyFS(dir, os.DirFS(certs)))
	h, err := Environment(func(name string) string {
		return map[string]string{"DOCKER_CONFIG": config, "DOCKER_CONTEXT": "remote"}[name]
	})
	require.NoError(t, err)
	assert.Equal(t, Host{Address: address, CertDir: dir, TLS: true}, h)
	_, err = openDocker(t.Context(), h)
	require.NoError(t, err)
}

func TestContextRefuses(t *testing.T) {
	for name, c := range map[string]struct{ meta, want string }{
		"not JSON":    {`{`, `Docker context "x": unexpected end of JSON input`},
		"no endpoint": {`{"Endpoints":{"kubernetes":{"Host":"https://k"}}}`, `Docker context "x" names no engine`},
		"no host":     {`{"Endpoints":{"docker":{}}}`, `Docker context "x" names no engine`},
	} {
		config := t.TempDir()
		writeContext(t, config, hexID("x"), c.meta)
		_, err := readContext(config, "x")
		require.ErrorIs(t, err, ErrInvalidHost, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestCurrentContext(t *testing.T) {
	config := t.TempDir()
	path := filepath.Join(config, "config.json")
	for content, want := range map[string]string{`{}`: "", `{"auths":{}}`: "", `{"currentContext":"x"}`: "x"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		got, err := currentContext(config)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	require.NoError(t, os.WriteFile(path, []byte(`{"currentContext":`), 0o644))
	_, err := Environment(func(name string) string { return map[string]string{"DOCKER_CONFIG": config}[name] })
	require.ErrorIs(t, err, ErrInvalidHost)
	require.ErrorContains(t, err, path+": unexpected end of JSON input: repair it, or set DOCKER_HOST")
	// With DOCKER_HOST it is not read.
	_, err = Environment(func(name string) string {
		return map[string]string{"DOCKER_CONFIG": config, "DOCKER_HOST": "tcp://h:1"}[name]
	})
	require.NoError(t, err)
}

func TestParseHost(t *testing.T) {
	for _, good := range []string{"unix:///run/docker.sock", "tcp://127.0.0.1:2375", "containerd:///run/containerd/containerd.sock"} {
		h, err := ParseHost(good)
		require.NoError(t, err, good)
		assert.Equal(t, Host{Address: good}, h)
	}
	for _, bad := range []string{"", "-dir", "/run/docker.sock", "containerd:", "containerd://run/x.sock", "ssh://host", "unix://relative"} {
		_, err := ParseHost(bad)
		require.ErrorIs(t, err, ErrInvalidHost, bad)
	}
}
