package awsauth

import (
	"context"
	"encoding/pem"
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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// Outside of a job with an ID token the role is not assumed: a warning says so
// and why, and the default chain serves.
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
		assert.Contains(t, r.told, keys.SecretAccessKey)
		assert.NotContains(t, r.told, keys.AccessKeyID)
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

// LoadConfig serves any client of AWS.
func TestLoadConfig(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	cfg, err := LoadConfig(t.Context(), &Options{RoleARN: testRole, Region: "us-east-2"})
	require.NoError(t, err)
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), nil)
	require.NoError(t, err)
	assert.NotEmpty(t, out.AuthorizationData)
	requests := r.server.Requests(awstest.ECR)
	assert.Equal(t, "us-east-2", requests[0].Region)

	noOIDC(t)
	cfg, err = LoadConfig(t.Context(), nil)
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

// Whoever answers for STS or ECR cannot lead what it was sent elsewhere: a client
// that follows a redirect with 307 posts the ID token once more.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, transport := range []http.RoundTripper{nil, http.DefaultTransport} {
		for service, kind := range map[string]error{"STS": ErrRole, "ECR": ErrECR} {
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
	require.ErrorIs(t, err, ErrRole)
	require.ErrorContains(t, err, "certificate")
	assert.Empty(t, r.waits, "a certificate does not get better")

	t.Setenv("AWS_CA_BUNDLE", bundle)
	r = r.again()
	r.good(private)

	t.Setenv(idTokenURL, front.URL+"/oidc/token?api-version=2.0")
	_, err = r.again().resolve(private)
	require.ErrorIs(t, err, ErrIDToken)
	require.ErrorContains(t, err, "certificate")
	assert.Empty(t, r.waits)
}
