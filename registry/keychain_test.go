package registry_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
)

// has is a keychain with one credential for every registry; without a user, none.
type has struct{ user, password string }

func (h has) Resolve(authn.Resource) (authn.Authenticator, error) {
	if h.user == "" {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: h.user, Password: h.password}, nil
}

// fails is a keychain that fails.
type fails struct{ err error }

func (f fails) Resolve(authn.Resource) (authn.Authenticator, error) { return nil, f.err }

func TestChain(t *testing.T) {
	target, err := name.NewRegistry("registry.example.com")
	require.NoError(t, err)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		chain registry.Chain
		user  string
		err   error
	}{
		"empty":                       {nil, "", nil},
		"none has one":                {registry.Chain{{"a", has{}}, {"b", has{}}}, "", nil},
		"the first that has one":      {registry.Chain{{"a", has{}}, {"b", has{"b", "x"}}, {"c", has{"c", "x"}}}, "b", nil},
		"behind one that fails":       {registry.Chain{{"a", fails{broken}}, {"b", has{"b", "x"}}}, "b", nil},
		"one that fails, then none":   {registry.Chain{{"a", fails{broken}}, {"b", has{}}}, "", broken},
		"one that fails is not asked": {registry.Chain{{"a", has{"a", "x"}}, {"b", fails{broken}}}, "a", nil},
	} {
		auth, err := c.chain.ResolveContext(t.Context(), target)
		require.ErrorIs(t, err, c.err, name)
		if err == nil {
			config, err := authn.Authorization(context.Background(), auth)
			require.NoError(t, err, name)
			assert.Equal(t, c.user, config.Username, name)
		}
	}
	_, err = registry.Chain{{"the first", fails{broken}}}.Resolve(target)
	require.ErrorContains(t, err, "the first: broken")
}

func TestGitHub(t *testing.T) {
	for _, c := range []struct {
		env            map[string]string
		host           string
		user, password string
	}{
		{map[string]string{"GITHUB_TOKEN": "t", "GITHUB_ACTOR": "octocat"}, "ghcr.io", "octocat", "t"},
		{map[string]string{"GH_TOKEN": "g", "GITHUB_ACTOR": "octocat"}, "ghcr.io", "octocat", "g"},
		{map[string]string{"GITHUB_TOKEN": "t", "GH_TOKEN": "g"}, "ghcr.io", "github", "t"},
		{map[string]string{"GITHUB_ACTOR": "octocat"}, "ghcr.io", "", ""},
		{map[string]string{"GITHUB_TOKEN": "t"}, "docker.io", "", ""},
		{map[string]string{"GITHUB_TOKEN": "t"}, "ghcr.io.example.com", "", ""},
		{map[string]string{"GITHUB_TOKEN": "t"}, "ghcr.io:444", "", ""},
	} {
		target, err := name.NewRegistry(c.host)
		require.NoError(t, err)
		for _, name := range []string{"GITHUB_TOKEN", "GH_TOKEN", "GITHUB_ACTOR"} {
			t.Setenv(name, c.env[name])
		}
		auth, err := registry.GitHub().Resolve(target)
		require.NoError(t, err)
		config, err := auth.Authorization()
		require.NoError(t, err)
		assert.Equal(t, c.user, config.Username, c)
		assert.Equal(t, c.password, config.Password, c)
	}
}

// The order is documented.
func TestDefaultChain(t *testing.T) {
	var names []string
	for _, k := range registry.DefaultChain() {
		names = append(names, k.Name)
	}
	assert.Equal(t, []string{"GITHUB_TOKEN", "Docker's config file", "podman's auth file"}, names)
}
