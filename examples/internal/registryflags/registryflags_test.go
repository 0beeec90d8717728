package registryflags

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// The order is documented.
func TestOrderOfKeychains(t *testing.T) {
	keychain, err := (&Flags{}).keychain(&cli.Output{})
	require.NoError(t, err)
	var names []string
	for _, k := range keychain.(registry.Chain) {
		names = append(names, k.Name)
	}
	assert.Equal(t, []string{"AWS", "GITHUB_TOKEN", "Docker's config file", "podman's auth file"}, names)
}

func TestAdvice(t *testing.T) {
	advice := Advice(Tip{registry.ErrNotFound, "own"}, Tip{Kind: registry.ErrDenied})
	for want, err := range map[string]error{
		"":    fmt.Errorf("x: %w", registry.ErrDenied),
		"own": fmt.Errorf("x: %w", registry.ErrNotFound),
		"own; check the registry's name and the network, or try again later":                                  fmt.Errorf("%w, %w", registry.ErrNotFound, registry.ErrUnreachable),
		"make room in the directory":                                                                          syscall.ENOSPC,
		"make room in the directory, or give a larger -quota":                                                 cache.ErrQuota,
		"mend the file with the login (Docker's config.json, podman's auth.json) or the helper that it names": registry.ErrNoCredentials,
		"if the registry is meant to lead there allow it with -allow-local":                                   errors.Join(registry.ErrInvalidAnswer, registry.ErrLocalAddress),
	} {
		assert.Equal(t, want, advice(err))
	}
	certificate := advice(registry.ErrCertificate)
	for _, what := range []string{"-ca FILE", "/etc/docker/certs.d/HOST[:PORT]/ca.crt", "SSL_CERT_FILE"} {
		assert.Contains(t, certificate, what)
	}
	assert.NotContains(t, certificate, "try again")
	none := &registry.Error{Kind: registry.ErrNoPlatform}
	assert.Contains(t, advice(none), "ask for one of these with -platform")
	none.Err = fmt.Errorf("%w, wanted is x", registry.ErrNoImage)
	assert.Empty(t, advice(none), "there is none to ask for")
	assert.Empty(t, advice(fmt.Errorf("%w: %w", registry.ErrNoCredentials, &awsauth.Error{Kind: awsauth.ErrNoRole})), "it says itself what to do")
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "no.pem")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	for want, f := range map[string]*Flags{
		`-plain-http "***@host:5000": want`:                   {PlainHTTP: cli.List{"user:SECRET@host:5000"}},
		`-plain-http "***@host": want`:                        {PlainHTTP: cli.List{"user:SE/CRET@host"}},
		`-plain-http "http://***@host": want`:                 {PlainHTTP: cli.List{"http://user:SECRET@host"}},
		`-plain-http "host?***": want`:                        {PlainHTTP: cli.List{"host?SECRET"}},
		`-plain-http "***@x": want`:                           {PlainHTTP: cli.List{"host#SECRET@x"}},
		`-plain-http "host#***": want`:                        {PlainHTTP: cli.List{"host#SECRET"}},
		`-plain-http "***@host": want HOST or HOST:PORT, wit`: {PlainHTTP: cli.List{"user:SE://CRET@host"}},
		`-plain-http "http://host": want`:                     {PlainHTTP: cli.List{"http://host"}},
		"-ca: " + file + ": no certificate in PEM":            {CA: cli.List{file}},
		"-ca: open " + file + "2: no such file":               {CA: cli.List{file + "2"}},
	} {
		err := f.Check()
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "SECRET")
		assert.True(t, f.Given())
	}
	require.NoError(t, (&Flags{PlainHTTP: cli.List{"host:5000", "host", "[::1]:5000"}}).Check())
	assert.True(t, (&Flags{AllowLocal: true}).Given())
	assert.False(t, (&Flags{}).Given())
}
