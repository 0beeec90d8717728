package awsauth

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// credentials loads the rig's configuration and returns its credentials.
func (r *rig) credentials() aws.CredentialsProvider {
	r.t.Helper()
	cfg, err := r.load(r.t.Context())
	require.NoError(r.t, err)
	return cfg.Credentials
}

// As the workflow asks for it.
func TestAssumeRoleRequest(t *testing.T) {
	r := newRig(t, awstest.Quirks{Role: testRole}, func(o *Options) { o.Duration, o.SessionName = 18000*time.Second, "gha-run-1" })
	c, err := r.credentials().Retrieve(t.Context())
	require.NoError(t, err)
	form := r.server.Requests(awstest.STS)[0].Form
	assert.Equal(t, testRole, form.Get("RoleArn"))
	assert.Equal(t, "18000", form.Get("DurationSeconds"))
	assert.Equal(t, "gha-run-1", form.Get("RoleSessionName"))
	assert.True(t, c.CanExpire)
	assert.InDelta(t, 18000, time.Until(c.Expires).Seconds(), 60)
	assert.Equal(t, "308535385114", c.AccountID)
}

func TestAssumeRoleDefaults(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	r.good(private)
	form := r.server.Requests(awstest.STS)[0].Form
	assert.Equal(t, "3600", form.Get("DurationSeconds"))
	assert.Equal(t, "dockercache", form.Get("RoleSessionName"))
}

// The role comes before credentials that happen to be in the environment, and
// STS is asked unsigned.
func TestRoleBeforeEnvironment(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	useKeys(t, awstest.Credentials{AccessKeyID: "AKIAOLD", SecretAccessKey: "long-expired"})
	r.good(private)
	assert.Equal(t, 1, r.asked(awstest.STS))

	r = newRig(t, awstest.Quirks{}, nil)
	useKeys(t, r.server.NewCredentials()) // good ones, of another user
	r.good(private)
	assert.Contains(t, r.server.Requests(awstest.ECR)[0].Header.Get("Authorization"), "Credential=ASIA", "a role's, not a user's")
}

// Each attempt has a new ID token: the server accepts each once.
func TestFreshIDTokenForEachAttempt(t *testing.T) {
	for what, q := range map[string]awstest.Quirks{
		"throttled":             {STSThrottled: true, STSThrottledCount: 7},
		"503":                   {STSStatus: 503, STSStatusCount: 7},
		"500":                   {STSStatus: 500, STSStatusCount: 7},
		"connection":            {STSCut: true, STSCutCount: 7},
		"InvalidIdentityToken":  {InvalidIdentityToken: true, InvalidIdentityTokenCount: 7},
		"IDPCommunicationError": {IDPCommunicationError: true, IDPCommunicationErrorCount: 7},
		"expired":               {ExpiredIDToken: true, ExpiredIDTokenCount: 7},
	} {
		r := newRig(t, q, nil)
		r.good(private)
		requests := r.server.Requests(awstest.STS)
		require.Equal(t, 8, len(requests), what) // Len would print them
		tokens := map[string]bool{}
		for _, request := range requests {
			tokens[request.Form.Get("WebIdentityToken")] = true
		}
		assert.Len(t, tokens, 8, what)
		require.Len(t, r.waits, 7, what)
		for i, wait := range r.waits {
			full := min(firstWait<<i, longestWait)
			assert.True(t, wait >= full/2 && wait <= full, "%s: wait %d is %v", what, i, wait)
		}
	}
}

func TestSTSNoAnswer(t *testing.T) {
	r := newRig(t, awstest.Quirks{STSNoAnswer: true, STSNoAnswerCount: 1}, nil)
	r.settings.attempt = 200 * time.Millisecond
	r.good(private)
	assert.Equal(t, 2, r.asked(awstest.OIDC))
}

// What does not pass is asked once; what passes, until the attempts are used up.
func TestAssumeRoleFailures(t *testing.T) {
	for what, c := range map[string]struct {
		quirks awstest.Quirks
		want   []string
		asked  int
	}{
		"denied":         {awstest.Quirks{RoleDenied: true}, []string{"AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity", "trust policy", ":sub"}, 1},
		"too long":       {awstest.Quirks{MaxDuration: 30 * time.Minute}, []string{"ValidationError", "MaxSessionDuration", "at least the 1h0m0s"}, 1},
		"quotes":         {awstest.Quirks{QuoteIDToken: true}, []string{"ValidationError", "Value '(not shown)' at 'webIdentityToken'"}, 1},
		"no credentials": {awstest.Quirks{NoCredentials: true}, []string{"the answer has no credentials"}, 1},
		"no session":     {awstest.Quirks{NoSessionToken: true}, []string{"the answer has no complete credentials"}, 1},
		"throttled":      {awstest.Quirks{STSThrottled: true}, []string{"after 8 attempts", "Rate exceeded", "run the job again"}, 8},
		"no provider":    {awstest.Quirks{InvalidIdentityToken: true}, []string{"after 8 attempts", "InvalidIdentityToken", "identity provider token.actions.githubusercontent.com"}, 8},
		"always 503":     {awstest.Quirks{STSStatus: 503}, []string{"after 8 attempts", "503"}, 8},
	} {
		r := newRig(t, c.quirks, nil)
		_, err := r.resolve(private)
		require.ErrorIs(t, err, ErrNoRole, what)
		assert.ErrorContains(t, err, "assume role "+testRole+": role not assumed: ", what)
		for _, want := range c.want {
			assert.ErrorContains(t, err, want, what)
		}
		assert.Equal(t, c.asked, r.asked(awstest.STS), what)
		assert.Zero(t, r.asked(awstest.ECR), what)
	}
}

// AWS_MAX_ATTEMPTS is obeyed.
func TestMaxAttempts(t *testing.T) {
	r := newRig(t, awstest.Quirks{STSThrottled: true}, nil)
	t.Setenv("AWS_MAX_ATTEMPTS", "3")
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrNoRole)
	assert.Equal(t, 3, r.asked(awstest.STS))
}

// The credentials are kept, and renewed before they end.
func TestRoleIsRenewed(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, func(o *Options) { o.Duration = 12 * time.Minute * 5 })
	p := r.credentials()
	first, err := p.Retrieve(t.Context())
	require.NoError(t, err)
	r.forward(54 * time.Minute)
	again, err := p.Retrieve(t.Context())
	require.NoError(t, err)
	assert.Equal(t, first, again)
	r.forward(2 * time.Minute) // a twelfth is left
	renewed, err := p.Retrieve(t.Context())
	require.NoError(t, err)
	assert.NotEqual(t, first.AccessKeyID, renewed.AccessKeyID)
	assert.Equal(t, 2, r.asked(awstest.OIDC))
}

// A renewal that fails does not end what is still good.
func TestRoleOutlivesAFailedRenewal(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	p := r.credentials()
	first, err := p.Retrieve(t.Context())
	require.NoError(t, err)
	r.server.SetQuirks(awstest.Quirks{RoleDenied: true})
	r.forward(56 * time.Minute)
	again, err := p.Retrieve(t.Context())
	require.NoError(t, err)
	assert.Equal(t, first, again)
	assert.Contains(t, r.log.String(), "credentials of the role are not renewed")
	r.forward(5 * time.Minute)
	_, err = p.Retrieve(t.Context())
	require.ErrorIs(t, r.failed(err), ErrNoRole)
}

// By AWS's clock the credentials end before they begin, or much later than they
// do; what counts is how long they last.
func TestRoleWithClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		r := newRig(t, awstest.Quirks{ClockSkew: skew}, nil)
		p := r.credentials()
		c, err := p.Retrieve(t.Context())
		require.NoError(t, err)
		assert.InDelta(t, time.Hour.Seconds(), time.Until(c.Expires).Seconds(), 60)
		_, err = p.Retrieve(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, r.asked(awstest.STS), "they are kept")
		assert.Contains(t, r.log.String(), "clock differs")
	}
}

// STS needs a region; where none is set, it is that of the partition.
func TestFirstRegion(t *testing.T) {
	for partition, want := range map[string]string{"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1", "aws-eusc": "eusc-de-east-1"} {
		arn := "arn:" + partition + ":iam::308535385114:role/name"
		assert.Equal(t, want, firstRegion(arn))
		r := newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = arn })
		cfg, err := r.load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, cfg.Credentials.(*role).client.Options().Region)
		assert.Empty(t, cfg.Region, "for other services it is not guessed")
	}
}
