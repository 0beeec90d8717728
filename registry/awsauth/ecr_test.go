package awsauth

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// The SDK's retries: three attempts, or the number in AWS_MAX_ATTEMPTS.
func TestECRRetries(t *testing.T) {
	for what, q := range map[string]awstest.Quirks{
		"throttled": {ECRThrottled: true, ECRThrottledCount: 2}, "503": {ECRStatus: 503, ECRStatusCount: 2},
	} {
		r := newRig(t, q, nil)
		r.good(private)
		assert.Equal(t, 3, r.asked(awstest.ECR), what)
	}
	r := newRig(t, awstest.Quirks{ECRThrottled: true}, nil)
	t.Setenv("AWS_MAX_ATTEMPTS", "6")
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoToken)
	assert.Equal(t, 6, r.asked(awstest.ECR))
	assert.ErrorContains(t, err, "log in to ECR of account 308535385114 in us-east-1: no authorization token: ")
	assert.ErrorContains(t, err, "Rate exceeded")
	assert.ErrorContains(t, err, "AWS_MAX_ATTEMPTS")
}

// A host that swallows packets is not waited for without end, and the error is that
// it did not answer.
func TestECRNoAnswer(t *testing.T) {
	r := newRig(t, awstest.Quirks{ECRNoAnswer: true}, nil)
	r.settings.ecrLimit = 200 * time.Millisecond
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoToken)
	require.ErrorIs(t, err, errNoAnswer)
}

func TestECRFailures(t *testing.T) {
	for want, q := range map[string]awstest.Quirks{
		"needs the permission ecr:GetAuthorizationToken":    {ECRDenied: true},
		"the answer has none":                               {NoAuthorization: true},
		"it is not the base64 of a user and a password":     {MalformedAuthorization: true},
		"it is not the base64 of a user and a password\x00": {NotBase64: true},
	} {
		want, _, _ = strings.Cut(want, "\x00")
		for _, repository := range []string{private, public} {
			r := newRig(t, q, nil)
			c, err := r.resolve(repository)
			if repository == public {
				require.NoError(t, err)
				assert.Empty(t, c)
				assert.Contains(t, r.log.String(), want)
				continue
			}
			require.ErrorIs(t, err, ErrNoToken)
			assert.ErrorContains(t, err, want)
		}
	}
}

// A token for another account is used, since the registry decides; it is logged.
func TestTokenForAnotherAccount(t *testing.T) {
	r := newRig(t, awstest.Quirks{OtherAccount: "999999999999"}, nil)
	r.good(private)
	log := r.log.String()
	assert.Contains(t, log, "level=WARN msg=\"ECR returned a token for another account")
	assert.Contains(t, log, "asked=308535385114 given=999999999999")

	r = newRig(t, awstest.Quirks{}, nil)
	r.good(private)
	assert.NotContains(t, r.log.String(), "another account")
}

// Credentials that AWS denies are replaced, once.
func TestRefusedCredentials(t *testing.T) {
	const elsewhere = "308535385114.dkr.ecr.eu-west-1.amazonaws.com/image"
	for what, q := range map[string]awstest.Quirks{"expired": {}, "used up": {CredentialUses: 1}} {
		r := newRig(t, q, nil)
		r.good(private)
		if what == "expired" {
			r.server.ExpireCredentials()
		}
		r.good(elsewhere)
		assert.Equal(t, 2, r.asked(awstest.STS), what)
		assert.Equal(t, 3, r.asked(awstest.ECR), what)
		assert.Contains(t, r.log.String(), "ExpiredTokenException", what)
	}
	r := newRig(t, awstest.Quirks{UnrecognizedClient: true, UnrecognizedClientCount: 1}, nil)
	r.good(private)
	assert.Equal(t, 2, r.asked(awstest.STS))

	r = newRig(t, awstest.Quirks{UnrecognizedClient: true}, nil)
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoToken)
	require.ErrorContains(t, err, "UnrecognizedClientException")
	assert.Equal(t, 2, r.asked(awstest.STS))
	assert.Equal(t, 2, r.asked(awstest.ECR), "once more, not for ever")

	r = newRig(t, awstest.Quirks{UnrecognizedClient: true, UnrecognizedClientCount: 1}, func(o *Options) { o.RoleARN = "" })
	useKeys(t, r.server.NewCredentials())
	r.good(private)
}

// A wrong secret key is an error with that advice.
func TestWrongSecretKey(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	keys := r.server.NewCredentials()
	keys.SecretAccessKey += "x"
	useKeys(t, keys)
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoToken)
	require.ErrorContains(t, err, "InvalidSignatureException")
	assert.Equal(t, 1, r.asked(awstest.ECR))
}

// The SDK signs by AWS's clock when its own is refused, and what it issues is
// cached as long as it lasts.
func TestClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-13 * time.Hour, -10 * time.Minute, 10 * time.Minute, 13 * time.Hour} {
		r := newRig(t, awstest.Quirks{ClockSkew: skew}, nil)
		first := r.good(private)
		requests := r.server.Requests(awstest.ECR)
		require.Len(t, requests, 2)
		assert.Equal(t, "InvalidSignatureException", requests[0].Refused)
		r.forward(10 * time.Hour)
		assert.Equal(t, first, r.good(private))
		r.forward(90 * time.Minute)
		assert.NotEqual(t, first, r.good(private))
	}
}

// An answer without the end of the password: 12 h, as documented.
func TestNoExpiry(t *testing.T) {
	r := newRig(t, awstest.Quirks{NoExpiry: true}, nil)
	first := r.good(private)
	r.forward(10 * time.Hour)
	assert.Equal(t, first, r.good(private))
}

// ECR Public has its own API, in one region, with an answer of another form.
func TestPublic(t *testing.T) {
	for _, repository := range []string{public, "ecr-public.aws.com/docker/library/debian"} {
		r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Region = "eu-west-1" })
		r.good(repository)
		requests := r.server.Requests(awstest.ECRPublic)
		require.Len(t, requests, 1)
		assert.Equal(t, "us-east-1", requests[0].Region)
		assert.Zero(t, r.asked(awstest.ECR))
	}
}

// recording answers each request itself, and notes which host it was for.
type recording struct{ hosts []string }

func (r *recording) RoundTrip(req *http.Request) (*http.Response, error) {
	r.hosts = append(r.hosts, req.URL.Scheme+"://"+req.URL.Host)
	const answer = `{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk"}]}`
	header := http.Header{"Content-Type": {"application/x-amz-json-1.1"}}
	return &http.Response{StatusCode: 200, Header: header, Body: io.NopCloser(strings.NewReader(answer)), Request: req}, nil
}

// Which endpoint of AWS serves which form of a host's name.
func TestEndpoints(t *testing.T) {
	for registry, want := range map[string]string{
		"308535385114.dkr.ecr.us-east-1.amazonaws.com":                "https://api.ecr.us-east-1.amazonaws.com",
		"308535385114.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       "https://api.ecr-fips.us-gov-west-1.amazonaws.com",
		"308535385114.dkr.ecr.cn-north-1.amazonaws.com.cn":            "https://api.ecr.cn-north-1.amazonaws.com.cn",
		"308535385114.dkr-ecr.us-west-2.on.aws":                       "https://ecr.us-west-2.api.aws",
		"308535385114.dkr-ecr-fips.us-west-2.on.aws":                  "https://ecr-fips.us-west-2.api.aws",
		"308535385114.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": "https://ecr.cn-north-1.api.amazonwebservices.com.cn",
	} {
		to := &recording{}
		r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN, o.Transport = "", to })
		useKeys(t, r.server.NewCredentials())
		t.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
		c, err := r.resolve(registry + "/image")
		require.NoError(t, err)
		assert.Equal(t, "password", c.Password)
		assert.Equal(t, []string{want}, to.hosts)

		// With an endpoint that was set, that one.
		t.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")
		to.hosts = nil
		_, err = r.again().resolve(registry + "/image")
		require.NoError(t, err)
		assert.Equal(t, []string{strings.TrimSuffix(r.server.URL(""), "/")}, to.hosts)
	}
}

// Names in the form of go-containerregistry reach the grammar.
func TestRegistryOfReference(t *testing.T) {
	repo, err := name.NewRepository("308535385114.dkr.ecr.us-east-1.amazonaws.com:443/image")
	require.NoError(t, err)
	_, ok := parseHost(repo.RegistryStr())
	assert.True(t, ok)
}
