package awsauth

import (
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// authenticator resolves a repository once, as a transport does for its lifetime.
func (r *rig) authenticatorOf(repository string) *Authenticator {
	r.t.Helper()
	repo, err := name.NewRepository(repository)
	require.NoError(r.t, err)
	a, err := r.ResolveContext(r.t.Context(), repo)
	require.NoError(r.t, err)
	require.IsType(r.t, &Authenticator{}, a)
	return a.(*Authenticator)
}

func loginOf(t *testing.T, a *Authenticator) authn.AuthConfig {
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

// The answer says how long it lasts; a shorter lifetime is renewed sooner.
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
	require.ErrorIs(t, r.failed(err), ErrRole)

	r.server.SetQuirks(awstest.Quirks{})
	assert.NotEqual(t, first, loginOf(t, a), "a failure is not kept")
}

// What the registry refused is not given out again.
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

// Who pulls from ECR Public without credentials of AWS is not hindered: any
// failure is logged, and leaves the host to the next keychain for a while.
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

// A transport that has ECR Public's password goes on without one when it ended
// and AWS gives no other.
func TestPublicPasswordEnds(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	a := r.authenticatorOf(public)
	assert.NotEmpty(t, loginOf(t, a))
	r.server.SetQuirks(awstest.Quirks{ECRDenied: true})
	r.forward(13 * time.Hour)
	assert.Empty(t, loginOf(t, a))
}
