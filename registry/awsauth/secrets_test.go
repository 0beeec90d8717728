package awsauth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// Everything that can go wrong, once: no secret is in any log line or error, and
// Secret is called with each that was issued, before it is sent. (The rig searches at
// the end of each test; the next test shows that it would find them.)
func TestNoSecretIsShown(t *testing.T) {
	for what, q := range map[string]awstest.Quirks{
		"good": {}, "quotes": {QuoteIDToken: true}, "denied": {RoleDenied: true}, "not JSON": {OIDCNotJSON: true}, "malformed token": {MalformedIDToken: true},
		"not base64": {NotBase64: true}, "malformed authorization": {MalformedAuthorization: true}, "ECR denied": {ECRDenied: true}, "unrecognized": {UnrecognizedClient: true},
		"other account": {OtherAccount: "999999999999"}, "skew": {ClockSkew: time.Hour}, "throttled": {ECRThrottled: true}, "invalid": {InvalidIdentityToken: true},
		"redirect": {OIDCRedirectTo: "http://127.0.0.1:1/"}, "cut": {STSCut: true},
	} {
		r := newRig(t, q, nil)
		for _, repository := range []string{private, public} {
			c, err := r.resolve(repository)
			if err == nil && c.Password != "" {
				assert.Contains(t, r.reported, c.Password, what)
			}
		}
		known := map[string]bool{}
		for _, secret := range r.reported {
			known[secret] = true
		}
		for _, request := range r.server.Requests(awstest.STS) {
			assert.True(t, known[request.Form.Get("WebIdentityToken")], "%s: an ID token was used before it was reported", what)
		}
		for _, request := range r.server.Requests(awstest.ECR) {
			assert.True(t, known[request.Header.Get("X-Amz-Security-Token")], "%s: a session token was used before it was reported", what)
		}
		unreported := signatureOf(r.server)
		for _, secret := range r.server.Secrets() {
			if !known[secret] {
				unreported = append(unreported, secret)
			}
		}
		// What cannot be read from an answer cannot be reported.
		switch what {
		case "not JSON":
			assert.NotEmpty(t, unreported)
		case "malformed token", "not base64", "malformed authorization":
		default:
			assert.Subset(t, signatureOf(r.server), unreported, what)
		}
		for _, secret := range r.reported {
			assert.NotRegexp(t, `^(A[KS]IA\w+|\d{12})$`, secret, "neither access key IDs nor accounts")
		}
	}
}

// The rig finds what it searches for.
func TestRigFindsSecrets(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	c := r.good(private)
	fake := &testing.T{}
	leaking := &rig{t: fake, server: r.server}
	leaking.checkSecrets()
	require.False(t, fake.Failed())
	_, err := leaking.log.Write([]byte("password=" + c.Password))
	require.NoError(t, err)
	leaking.checkSecrets()
	assert.True(t, fake.Failed())
}
