package awsauth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/awsauth/awstest"
)

// No role and nothing else either: the error says both, and what to do.
func TestNoCredentialsAtAll(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	noOIDC(t)
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoCredentials)
	assert.ErrorContains(t, err, "role "+testRole+" is not assumed, because "+idTokenURL+" is not set")
	assert.ErrorContains(t, err, "permissions: id-token: write")
	assert.ErrorContains(t, err, "AWS_ACCESS_KEY_ID")
	assert.Zero(t, r.asked(awstest.ECR), "nobody is asked without credentials")

	r = newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	_, err = r.resolve(private)
	require.ErrorIs(t, err, ErrNoCredentials)
	assert.ErrorContains(t, err, "no role was given to assume")
}

// Who leaves while credentials are looked for is not told that there are none.
func TestChainContextEnds(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := r.credentials().Retrieve(ctx)
	require.ErrorIs(t, err, why)
	assert.NotErrorIs(t, err, ErrNoCredentials)
}

// A profile, with a region and keys of its own.
func TestProfile(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	keys := r.server.NewCredentials()
	dir := t.TempDir()
	config, shared := filepath.Join(dir, "config"), filepath.Join(dir, "credentials")
	require.NoError(t, os.WriteFile(config, []byte("[profile ci]\nregion = eu-west-3\n"), 0o600))
	require.NoError(t, os.WriteFile(shared, []byte("[ci]\naws_access_key_id = "+keys.AccessKeyID+"\naws_secret_access_key = "+keys.SecretAccessKey+"\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", config)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", shared)
	t.Setenv("AWS_PROFILE", "ci")
	r.good(private)
	cfg, err := r.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "eu-west-3", cfg.Region)
	assert.Equal(t, "us-east-1", r.server.Requests(awstest.ECR)[0].Region, "that of the host")
}

// What the SDK asks of a provider is passed on.
func TestChainIsTransparent(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	useKeys(t, r.server.NewCredentials())
	c := r.credentials().(*chain)
	assert.Equal(t, []aws.CredentialSource{aws.CredentialSourceEnvVars}, c.ProviderSources())
	assert.False(t, aws.IsCredentialsProvider(c, (*aws.AnonymousCredentials)(nil)))
	c = &chain{r.settings, aws.AnonymousCredentials{}, ""}
	assert.True(t, aws.IsCredentialsProvider(c, (*aws.AnonymousCredentials)(nil)))
	assert.Empty(t, c.ProviderSources())
	c.Invalidate() // there is no cache

	asked := 0
	c.CredentialsProvider = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		asked++
		return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "key"}, nil
	}))
	for want := range 3 {
		for range 2 {
			_, err := c.Retrieve(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want+1, asked)
		}
		c.Invalidate()
	}
}
