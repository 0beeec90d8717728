package registryflags

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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
	for want, err := range map[string]error{
		"-connections":                  fmt.Errorf("%w: status 429 Too Many Requests", registry.ErrUnreachable),
		"log in":                        fmt.Errorf("read: %w", &refusal{&registry.Error{Kind: registry.ErrUnreachable, Err: errors.New("status 503 Service Unavailable")}}),
		"-first-byte-timeout":           &registry.Error{Kind: registry.ErrUnreachable, Err: errors.New("no first byte came in time (5m0s)")},
		"-stall-timeout":                &registry.Error{Kind: registry.ErrUnreachable, Err: errors.New("no byte came for too long (15s)")},
		"-min-rate":                     fmt.Errorf("x: %w: 3 B/s", cache.ErrTooSlow),
		"run it again":                  cache.ErrTooSlow,
		"more time with -image-timeout": fmt.Errorf("%w (x)", ErrImageTime),
		"what has come serves the next attempt; or": ErrRunTime,
	} {
		assert.Contains(t, advice(err), want)
		assert.NotContains(t, advice(err), "check the registry's name")
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

// A refusal asks to wait.
type refusal struct{ error }

func (r *refusal) Unwrap() error             { return r.error }
func (r *refusal) RetryAfter() time.Duration { return time.Second }

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
	}
	require.NoError(t, (&Flags{PlainHTTP: cli.List{"host:5000", "host", "[::1]:5000"}}).Check())
}
