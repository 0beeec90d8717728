package awsauth

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// Outside of a job with an ID token the role is not assumed: that is logged with the
// reason, and the default chain is used.
func TestWithoutOIDC(t *testing.T) {
	for _, missing := range []string{idTokenURL, idTokenRequest} {
		r := newRig(t, awstest.Quirks{}, nil)
		t.Setenv(missing, "")
		keys := r.server.NewCredentials()
		useKeys(t, keys)
		r.good(private)
		assert.Zero(t, r.asked(awstest.OIDC)+r.asked(awstest.STS))
		log := r.log.String()
		assert.Contains(t, log, "level=WARN")
		assert.Contains(t, log, testRole)
		assert.Contains(t, log, missing+" is not set")
		assert.Contains(t, log, "permissions: id-token: write")
		assert.Contains(t, r.reported, keys.SecretAccessKey)
		assert.NotContains(t, r.reported, keys.AccessKeyID)
	}
}

// Without a role OIDC is not used, even where it could be.
func TestWithoutRole(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	useKeys(t, r.server.NewCredentials())
	r.good(private)
	assert.Zero(t, r.asked(awstest.OIDC)+r.asked(awstest.STS))
	assert.NotContains(t, r.log.String(), "WARN")
}

// The region: the option, else the environment's.
func TestRegion(t *testing.T) {
	for _, c := range []struct{ option, variable, fallback, want string }{
		{"eu-west-1", "us-west-2", "us-west-1", "eu-west-1"}, {"", "us-west-2", "us-west-1", "us-west-2"}, {"", "", "us-west-1", "us-west-1"}, {"", "", "", ""},
	} {
		r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Region = c.option })
		t.Setenv("AWS_REGION", c.variable)
		t.Setenv("AWS_DEFAULT_REGION", c.fallback)
		cfg, err := r.load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, c.want, cfg.Region)
	}
}

// AWS_ENDPOINT_URL alone is where all services are.
func TestEndpointForAllServices(t *testing.T) {
	for _, name := range []string{"_STS", "_ECR", "_ECR_PUBLIC"} {
		t.Setenv("AWS_ENDPOINT_URL"+name, "x") // so that it is put back
	}
	r := newRig(t, awstest.Quirks{}, nil)
	for _, name := range []string{"_STS", "_ECR", "_ECR_PUBLIC"} {
		require.NoError(t, os.Unsetenv("AWS_ENDPOINT_URL"+name))
	}
	t.Setenv("AWS_ENDPOINT_URL", r.server.URL(awstest.STS))
	_, err := r.credentials().Retrieve(t.Context())
	require.NoError(t, err)
	cfg, err := r.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, r.server.URL(awstest.STS), aws.ToString(ecr.NewFromConfig(cfg).Options().BaseEndpoint))
}

// The configuration serves any client of AWS, and looks for credentials when it is
// asked for them.
func TestLoad(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Region = "us-east-2" })
	cfg, err := r.load(t.Context())
	require.NoError(t, err)
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), nil)
	require.NoError(t, err)
	assert.NotEmpty(t, out.AuthorizationData)
	requests := r.server.Requests(awstest.ECR)
	assert.Equal(t, "us-east-2", requests[0].Region)

	r = newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	cfg, err = r.load(t.Context())
	require.NoError(t, err, "credentials are not looked for yet")
	_, err = cfg.Credentials.Retrieve(t.Context())
	require.ErrorIs(t, err, ErrNoCredentials)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = cfg.Credentials.Retrieve(ctx)
	require.Error(t, err)
}

// counting counts requests by their path.
type counting map[string]int

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c[r.URL.Path]++
	return http.DefaultTransport.RoundTrip(r)
}

func TestTransport(t *testing.T) {
	c := counting{}
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Transport = c })
	r.good(private)
	assert.Equal(t, counting{"/oidc/token": 1, "/sts": 1, "/ecr": 1}, c)
}

// A server in the place of STS or ECR cannot redirect what it was sent: a client
// that follows a redirect with 307 posts the ID token once more.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, transport := range []http.RoundTripper{nil, http.DefaultTransport} {
		for service, kind := range map[string]error{"STS": ErrNoRole, "ECR": ErrNoToken} {
			r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Transport = transport })
			led := 0
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led++ }))
			defer elsewhere.Close()
			front := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
			defer front.Close()
			t.Setenv("AWS_ENDPOINT_URL_"+service, front.URL)
			_, err := r.resolve(private)
			require.ErrorIs(t, err, kind)
			assert.Zero(t, led, service)
		}
	}
}

// AWS_CA_BUNDLE is for AWS. The request for an ID token is not one to AWS, so
// there the system's certificates count.
func TestCABundle(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	to, err := url.Parse(strings.TrimSuffix(r.server.URL(""), "/"))
	require.NoError(t, err)
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host // it is signed
	}})
	defer front.Close()
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	require.NoError(t, os.WriteFile(bundle, certificate, 0o600))

	t.Setenv("AWS_ENDPOINT_URL_STS", front.URL+"/sts")
	t.Setenv("AWS_ENDPOINT_URL_ECR", front.URL+"/ecr")
	_, err = r.resolve(private)
	require.ErrorIs(t, err, ErrNoRole)
	require.ErrorContains(t, err, "certificate")
	assert.Empty(t, r.waits, "a certificate does not get better")

	t.Setenv("AWS_CA_BUNDLE", bundle)
	r = r.again()
	r.good(private)

	t.Setenv(idTokenURL, front.URL+"/oidc/token?api-version=2.0")
	_, err = r.again().resolve(private)
	require.ErrorIs(t, err, ErrNoIDToken)
	require.ErrorContains(t, err, "certificate")
	assert.Empty(t, r.waits)
}

// No role and no other credentials: the error has both, and what to do.
func TestNoCredentialsAtAll(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	noOIDC(t)
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoCredentials)
	assert.ErrorContains(t, err, "role "+testRole+" is not assumed, because "+idTokenURL+" is not set")
	assert.ErrorContains(t, err, "permissions: id-token: write")
	assert.ErrorContains(t, err, "AWS_ACCESS_KEY_ID")
	assert.Zero(t, r.asked(awstest.ECR), "no request is made without credentials")

	r = newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	_, err = r.resolve(private)
	require.ErrorIs(t, err, ErrNoCredentials)
	assert.ErrorContains(t, err, "no role was given to assume")
}

// When the context ends while credentials are looked for, the error is not that
// there are none.
func TestChainContextEnds(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := r.credentials().Retrieve(ctx)
	require.ErrorIs(t, err, why)
	assert.NotErrorIs(t, err, ErrNoCredentials)
}

// A profile with its own region and keys.
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
				assert.Contains(t, r.reported, keys.SecretAccessKey)
			}
		})
	}
}

// The optional methods of the SDK's providers are passed on.
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

// A line end that a variable got is no part of a key or token.
func TestKeysWithLineEnds(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	keys := r.server.NewCredentials()
	keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken = keys.AccessKeyID+"\n", keys.SecretAccessKey+"\n", keys.SessionToken+"\r\n"
	useKeys(t, keys)
	r.good(private)

	r = newRig(t, awstest.Quirks{}, nil)
	t.Setenv(idTokenRequest, os.Getenv(idTokenRequest)+"\n")
	t.Setenv(idTokenURL, os.Getenv(idTokenURL)+"\n")
	r.good(private)
}
