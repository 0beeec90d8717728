package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

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
	_, err = Connect(t.Context(), h)
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
		require.ErrorIs(t, err, ErrHost, name)
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
	require.ErrorIs(t, err, ErrHost)
	require.ErrorContains(t, err, path+": unexpected end of JSON input: mend it, or set DOCKER_HOST")
	// With DOCKER_HOST nobody asks.
	_, err = Environment(func(name string) string {
		return map[string]string{"DOCKER_CONFIG": config, "DOCKER_HOST": "tcp://h:1"}[name]
	})
	require.NoError(t, err)
}
