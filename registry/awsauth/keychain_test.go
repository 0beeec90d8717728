package awsauth

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
	"github.com/dockercache/dockercache/registry"
)

// From the job's ID token to a password that the registry takes.
func TestIDTokenToPassword(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	c := r.good(private)
	assert.Equal(t, "AWS", c.Username)
	assert.Equal(t, 1, r.asked(awstest.OIDC))
	assert.Equal(t, 1, r.asked(awstest.STS))
	ecr := r.server.Requests(awstest.ECR)
	require.Len(t, ecr, 1)
	assert.Equal(t, "us-east-1", ecr[0].Region)
	assert.Contains(t, ecr[0].Header.Get("Authorization"), "Credential=ASIA", "signed with what STS gave out")
	assert.NotEmpty(t, ecr[0].Header.Get("X-Amz-Security-Token"))
	assert.JSONEq(t, `{"registryIds":["308535385114"]}`, ecr[0].Body)
	assert.ElementsMatch(t, r.server.Secrets(), append(r.reported, signatureOf(r.server)...), "Secret was called with all")
}

// signatureOf returns the one secret that is only ever part of another: the
// signature within the ID token.
func signatureOf(s *awstest.Server) (signatures []string) {
	for _, secret := range s.Secrets() {
		if len(secret) > 10 && secret[:10] == "signature-" {
			signatures = append(signatures, secret)
		}
	}
	return signatures
}

// A run that touches no host of ECR makes no request, whatever the environment has.
func TestOtherHostsAreLeftAlone(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	t.Setenv("AWS_PROFILE", "not-there") // loading the configuration would fail
	repo, err := name.NewRepository("ghcr.io/pytorch/ci-image")
	require.NoError(t, err)
	a, err := r.Resolve(repo)
	require.NoError(t, err)
	assert.Equal(t, authn.Anonymous, a)
	for _, service := range []string{awstest.OIDC, awstest.STS, awstest.ECR, awstest.ECRPublic} {
		assert.Zero(t, r.asked(service))
	}
	assert.Empty(t, r.log.String())

	// The next keychain is asked.
	next := authn.NewMultiKeychain(r.Keychain, fixed{})
	a, err = next.Resolve(repo)
	require.NoError(t, err)
	assert.Equal(t, authn.FromConfig(authn.AuthConfig{Username: "next"}), a)
}

type fixed struct{}

func (fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "next"}), nil
}

// An AWS failure is not an anonymous attempt: the next keychain is not asked.
func TestFailureIsAnError(t *testing.T) {
	for what, q := range map[string]awstest.Quirks{
		"role": {RoleDenied: true}, "ECR": {ECRDenied: true}, "ID token": {OIDCStatus: 403},
	} {
		r := newRig(t, q, nil)
		repo, err := name.NewRepository(private)
		require.NoError(t, err)
		_, err = authn.NewMultiKeychain(r.Keychain, fixed{}).Resolve(repo)
		require.Error(t, r.failed(err), what)
		var typed *Error
		require.ErrorAs(t, err, &typed, what)
		assert.NotEmpty(t, typed.Advice, what)
		assert.Contains(t, err.Error(), typed.Advice, what)
	}
}

// One token for each account and region, whatever the repositories.
func TestOneTokenForEachRegistry(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	first := r.good(private)
	assert.Equal(t, first, r.good("308535385114.dkr.ecr.us-east-1.amazonaws.com/other"))
	assert.NotEqual(t, first, r.good("308535385114.dkr.ecr.eu-west-1.amazonaws.com/other"))
	assert.NotEqual(t, first, r.good("123456789012.dkr.ecr.us-east-1.amazonaws.com/other"))
	ecr := r.server.Requests(awstest.ECR)
	require.Len(t, ecr, 3)
	assert.Equal(t, "eu-west-1", ecr[1].Region, "the host's, not the configuration's")
	assert.Contains(t, ecr[2].Body, "123456789012")
	assert.Equal(t, 1, r.asked(awstest.STS), "one role for all")
}

func TestManyAskAtOnce(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	repo, err := name.NewRepository(private)
	require.NoError(t, err)
	var all sync.WaitGroup
	start := make(chan struct{})
	got := make([]authn.AuthConfig, 100)
	for i := range got {
		all.Go(func() {
			<-start
			a, err := r.Resolve(repo)
			if assert.NoError(t, err) {
				c, err := a.Authorization()
				assert.NoError(t, err)
				got[i] = *c
			}
		})
	}
	close(start)
	all.Wait()
	for _, c := range got {
		assert.Equal(t, got[0], c)
	}
	for _, service := range []string{awstest.OIDC, awstest.STS, awstest.ECR} {
		assert.Equal(t, 1, r.asked(service), service)
	}
}

// The end of a context is returned, and is not a failure of AWS that ECR Public
// could go on without.
func TestContextEnds(t *testing.T) {
	for _, repository := range []string{private, public} {
		repo, err := name.NewRepository(repository)
		require.NoError(t, err)
		why := errors.New("stopped")
		ctx, cancel := context.WithCancelCause(t.Context())
		r := newRig(t, awstest.Quirks{STSNoAnswer: true}, func(o *Options) {
			o.Secret = func(secret string) {
				if isJWT(secret) { // so STS is about to be asked
					cancel(why)
				}
			}
		})
		_, err = r.ResolveContext(ctx, repo)
		require.ErrorIs(t, err, why)
		r.server.Close() // which ends what is under way

		r = newRig(t, awstest.Quirks{}, nil)
		_, err = r.ResolveContext(ctx, repo)
		require.ErrorIs(t, err, why)
		assert.Empty(t, r.reported, "nothing was begun")
	}
}

// A configuration that was bad is read again.
func TestBadConfigurationIsNotKept(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	t.Setenv("AWS_PROFILE", "not-there")
	_, err := r.resolve(private)
	require.ErrorIs(t, err, ErrInvalidConfig)
	assert.ErrorContains(t, err, "not-there")
	t.Setenv("AWS_PROFILE", "")
	r.good(private)
}

// The contracts that are declared where they are used.
var (
	_ registry.Refuser        = (*authenticator)(nil)
	_ registry.TemporaryError = (*Error)(nil)
)

// authenticatorOf resolves a repository once, as a transport does for its lifetime.
func (r *rig) authenticatorOf(repository string) *authenticator {
	r.t.Helper()
	repo, err := name.NewRepository(repository)
	require.NoError(r.t, err)
	a, err := r.ResolveContext(r.t.Context(), repo)
	require.NoError(r.t, err)
	require.IsType(r.t, &authenticator{}, a)
	return a.(*authenticator)
}

func loginOf(t *testing.T, a *authenticator) authn.AuthConfig {
	t.Helper()
	c, err := a.Authorization()
	require.NoError(t, err)
	return *c
}

// The transport keeps the authenticator for hours: it must have a good password
// at all times.
func TestPasswordIsRenewed(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	a := r.authenticatorOf(private)
	first := loginOf(t, a)
	r.forward(11*time.Hour - time.Minute)
	assert.Equal(t, first, loginOf(t, a))
	r.forward(2 * time.Minute)
	renewed := loginOf(t, a)
	assert.NotEqual(t, first, renewed)
	assert.Equal(t, 2, r.asked(awstest.ECR))
	assert.Equal(t, 2, r.asked(awstest.STS), "the role's credentials have ended meanwhile")
}

// The answer has the lifetime; a shorter one is renewed sooner.
func TestShortPassword(t *testing.T) {
	r := newRig(t, awstest.Quirks{PasswordLifetime: time.Hour}, nil)
	a := r.authenticatorOf(private)
	first := loginOf(t, a)
	r.forward(54 * time.Minute)
	assert.Equal(t, first, loginOf(t, a))
	r.forward(2 * time.Minute)
	assert.NotEqual(t, first, loginOf(t, a))
}

// A renewal that fails does not end what is still good.
func TestPasswordOutlivesAFailedRenewal(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	a := r.authenticatorOf(private)
	first := loginOf(t, a)
	r.server.SetQuirks(awstest.Quirks{RoleDenied: true})
	r.forward(11*time.Hour + time.Minute)
	assert.Equal(t, first, loginOf(t, a))
	assert.Contains(t, r.log.String(), "password is not renewed")
	asked := r.asked(awstest.STS)
	assert.Equal(t, first, loginOf(t, a))
	assert.Equal(t, asked, r.asked(awstest.STS), "not at each request")
	r.forward(time.Hour)
	_, err := a.Authorization()
	require.ErrorIs(t, r.failed(err), ErrNoRole)

	r.server.SetQuirks(awstest.Quirks{})
	assert.NotEqual(t, first, loginOf(t, a), "a failure is not kept")
}

// A password that the registry denied is not returned again.
func TestRefused(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	a := r.authenticatorOf(private)
	first := loginOf(t, a)
	r.server.ExpirePasswords()
	assert.False(t, r.server.GoodPassword(first.Username, first.Password))
	a.Refused(first)
	second := loginOf(t, a)
	assert.True(t, r.server.GoodPassword(second.Username, second.Password))

	// Requests that were under way come late, with the old one.
	a.Refused(first)
	a.Refused(authn.AuthConfig{})
	assert.Equal(t, second, loginOf(t, a))
	assert.Equal(t, 2, r.asked(awstest.ECR))
}

// ECR Public can be used without credentials of AWS: any failure is logged, and the
// next keychain is asked for a while.
func TestPublicWithoutAWS(t *testing.T) {
	r := newRig(t, awstest.Quirks{ECRDenied: true}, nil)
	repo, err := name.NewRepository(public)
	require.NoError(t, err)
	for range 3 {
		a, err := authn.NewMultiKeychain(r.Keychain, fixed{}).Resolve(repo)
		require.NoError(t, err)
		assert.Equal(t, authn.FromConfig(authn.AuthConfig{Username: "next"}), a)
	}
	assert.Equal(t, 1, r.asked(awstest.ECRPublic), "AWS is not asked for each image")
	assert.Contains(t, r.log.String(), "level=WARN msg=\"pulling from ECR Public without credentials of AWS")
	r.server.SetQuirks(awstest.Quirks{})
	r.forward(publicPause)
	r.good(public)

	for what, q := range map[string]awstest.Quirks{"role": {RoleDenied: true}, "ID token": {OIDCStatus: 403}, "throttled": {ECRThrottled: true}} {
		r := newRig(t, q, nil)
		c, err := r.resolve(public)
		require.NoError(t, err, what)
		assert.Empty(t, c, what)
	}

	// No credentials at all are not worth a warning.
	r = newRig(t, awstest.Quirks{}, func(o *Options) { o.RoleARN = "" })
	a, err := r.Resolve(repo)
	require.NoError(t, err)
	assert.Equal(t, authn.Anonymous, a)
	assert.NotContains(t, r.log.String(), "WARN")
	assert.Contains(t, r.log.String(), "pulling from ECR Public without credentials of AWS")
}

// A transport that has ECR Public's password goes on without one when it has ended
// and AWS returns no other.
func TestPublicPasswordEnds(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	a := r.authenticatorOf(public)
	assert.NotEmpty(t, loginOf(t, a))
	r.server.SetQuirks(awstest.Quirks{ECRDenied: true})
	r.forward(13 * time.Hour)
	assert.Empty(t, loginOf(t, a))
}
