package registryflags

import (
	"fmt"
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
	assert.Equal(t, []string{"AWS", "GITHUB_TOKEN", "Docker's config file"}, names)
}

func TestAdvice(t *testing.T) {
	advice := Advice(Tip{registry.ErrNotFound, "own"}, Tip{Kind: registry.ErrDenied})
	for want, err := range map[string]error{
		"":    fmt.Errorf("x: %w", registry.ErrDenied),
		"own": fmt.Errorf("x: %w", registry.ErrNotFound),
		"own; check the registry's name and the network, or try again later":                           fmt.Errorf("%w, %w", registry.ErrNotFound, registry.ErrUnreachable),
		"make room in the directory":                                                                   syscall.ENOSPC,
		"make room in the directory, or give a larger -quota":                                          cache.ErrQuota,
		"mend Docker's config file (DOCKER_CONFIG, ~/.docker/config.json) or the helper that it names": registry.ErrNoCredentials,
	} {
		assert.Equal(t, want, advice(err))
	}
	none := &registry.Error{Kind: registry.ErrNoPlatform}
	assert.Contains(t, advice(none), "ask for one of these with -platform")
	none.Err = fmt.Errorf("%w, wanted is x", registry.ErrNoImage)
	assert.Empty(t, advice(none), "there is none to ask for")
	assert.Empty(t, advice(fmt.Errorf("%w: %w", registry.ErrNoCredentials, &awsauth.Error{Kind: awsauth.ErrNoRole})), "it says itself what to do")
}
