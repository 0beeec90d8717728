package awsauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
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

// metadata answers as the service that an instance asks for the keys of its role,
// and as the one of a container.
func metadata(t *testing.T, c awstest.Credentials) string {
	t.Helper()
	keys := fmt.Sprintf(`{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`,
		c.AccessKeyID, c.SecretAccessKey, c.SessionToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	const role = "/latest/meta-data/iam/security-credentials/"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = io.WriteString(w, "metadata-token")
		case r.URL.Path == role && r.Header.Get("X-Aws-Ec2-Metadata-Token") == "metadata-token":
			_, _ = io.WriteString(w, "runner-role")
		case r.URL.Path == role+"runner-role", r.URL.Path == "/container" && r.Header.Get("Authorization") == "container-token":
			_, _ = io.WriteString(w, keys)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// What else the default chain has: the role of the instance or container that it
// runs on, and an ID token in a file.
func TestDefaultChain(t *testing.T) {
	for what, prepare := range map[string]func(*rig, awstest.Credentials){
		"instance": func(r *rig, keys awstest.Credentials) {
			r.t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
			r.t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata(r.t, keys))
		},
		"container": func(r *rig, keys awstest.Credentials) {
			r.t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata(r.t, keys)+"/container")
			r.t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
		},
		"ID token in a file": func(r *rig, _ awstest.Credentials) {
			tokens, _, err := r.settings.findIDTokens()
			require.NoError(r.t, err)
			token, err := tokens.fetch(r.t.Context())
			require.NoError(r.t, err)
			file := filepath.Join(r.t.TempDir(), "token")
			require.NoError(r.t, os.WriteFile(file, []byte(token), 0o600))
			r.t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
			r.t.Setenv("AWS_ROLE_ARN", testRole)
			r.t.Setenv("AWS_REGION", "us-east-1")
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
			keys := r.server.NewCredentials()
			prepare(r, keys)
			r.good(private)
			c, err := r.credentials().Retrieve(t.Context())
			if what != "ID token in a file" { // which is good once
				require.NoError(t, err)
				assert.Equal(t, keys.SecretAccessKey, c.SecretAccessKey)
				assert.Contains(t, r.told, keys.SecretAccessKey)
			}
		})
	}
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
