package awsauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// What is asked for ID tokens, and how.
func TestIDTokenRequest(t *testing.T) {
	r := newRig(t, awstest.Quirks{}, nil)
	r.good(private)
	requests := r.server.Requests(awstest.OIDC)
	require.Len(t, requests, 1)
	assert.Equal(t, []string{"sts.amazonaws.com"}, requests[0].Form["audience"])
	assert.Equal(t, []string{"2.0"}, requests[0].Form["api-version"], "the query that was there")
	assert.True(t, strings.HasPrefix(requests[0].Header.Get("Authorization"), "bearer "))
}

// What passes is waited for, longer each time.
func TestIDTokenRetries(t *testing.T) {
	for what, q := range map[string]awstest.Quirks{
		"500": {OIDCStatus: 500, OIDCStatusCount: 4}, "503": {OIDCStatus: 503, OIDCStatusCount: 4}, "429": {OIDCStatus: 429, OIDCStatusCount: 4},
		"connection": {OIDCCut: true, OIDCCutCount: 4},
	} {
		r := newRig(t, q, nil)
		r.good(private)
		assert.Equal(t, 5, r.asked(awstest.OIDC), what)
		assert.Equal(t, 1, r.asked(awstest.STS), what)
		require.Len(t, r.waits, 4, what)
		for i, wait := range r.waits {
			full := firstWait << i
			assert.True(t, wait >= full/2 && wait <= full, "%s: wait %d is %v", what, i, wait)
		}
	}
}

// A host that swallows packets gets one attempt's time, not all of it.
func TestIDTokenNoAnswer(t *testing.T) {
	r := newRig(t, awstest.Quirks{OIDCNoAnswer: true, OIDCNoAnswerCount: 1}, nil)
	r.settings.attempt = 200 * time.Millisecond
	r.good(private)
	assert.Contains(t, r.log.String(), errNoAnswer.Error())
}

// What does not pass ends at once, STS is not asked, and nothing is quoted.
func TestIDTokenFailures(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked, with %d bytes of Authorization", r.Host, len(r.Header.Get("Authorization")))
	}))
	defer elsewhere.Close()
	for what, c := range map[string]struct {
		quirks awstest.Quirks
		want   string
		asked  int
	}{
		"redirect":    {awstest.Quirks{OIDCRedirectTo: elsewhere.URL + "/?sig=x"}, "it redirects to " + strings.TrimPrefix(elsewhere.URL, "http://") + ", where", 1},
		"malformed":   {awstest.Quirks{MalformedIDToken: true}, "not three parts of base64url", 1},
		"no value":    {awstest.Quirks{NoValue: true}, "the answer has no value", 1},
		"not JSON":    {awstest.Quirks{OIDCNotJSON: true}, "not the expected JSON", 1},
		"huge":        {awstest.Quirks{OIDCHuge: true}, "longer than 65536 bytes", 1},
		"403":         {awstest.Quirks{OIDCStatus: 403}, "status 403 Forbidden (the job's token is not accepted", 1},
		"501":         {awstest.Quirks{OIDCStatus: 501}, "status 501", 1},
		"always 503":  {awstest.Quirks{OIDCStatus: 503}, "after 5 attempts: status 503 Service Unavailable (run the job again)", 5},
		"always gone": {awstest.Quirks{OIDCCut: true}, "after 5 attempts: EOF", 5},
	} {
		r := newRig(t, c.quirks, nil)
		_, err := r.resolve(private)
		require.ErrorIs(t, err, ErrNoIDToken, what)
		assert.ErrorContains(t, err, c.want, what)
		assert.ErrorContains(t, err, "get an ID token from 127.0.0.1:", what)
		assert.NotContains(t, err.Error(), "audience", "not the whole URL")
		assert.Equal(t, c.asked, r.asked(awstest.OIDC), what)
		assert.Zero(t, r.asked(awstest.STS), what)
	}
}

// The variables may be wrong.
func TestIDTokenVariables(t *testing.T) {
	for value, want := range map[string]string{
		"http://actions.example.com/token?x=y":  "not an https URL, so the token would be sent in the clear to actions.example.com",
		"ftp://127.0.0.1/token":                 "not an https URL",
		"://":                                   "not a URL",
		"token":                                 "not a URL",
		"https://actions.example.com/\n::error": "not a URL",
	} {
		r := newRig(t, awstest.Quirks{}, nil)
		t.Setenv(idTokenURL, value)
		_, err := r.resolve(private)
		require.ErrorIs(t, err, ErrNoIDToken, value)
		assert.ErrorContains(t, err, want, value)
	}
}

func TestIsJWT(t *testing.T) {
	for _, good := range []string{"a-_8.YWJj.AAAA", "YQ.YQ.YQ"} {
		assert.True(t, isJWT(good), good)
	}
	for _, bad := range []string{"", "a", "YQ.YQ", "YQ.YQ.YQ.YQ", "YQ..YQ", "YQ.YQ.", "YQ.YQ.Y+", "YQ.YQ.YQ==", "YQ.YQ.Y\nQ", "YQ.YQ. YQ", "YQ.YQ.Y"} {
		assert.False(t, isJWT(bad), bad)
	}
}
