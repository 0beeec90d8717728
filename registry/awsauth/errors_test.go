package awsauth

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
	"github.com/dockercache/dockercache/internal/redact"
)

func TestError(t *testing.T) {
	cause := &smithy.GenericAPIError{Code: "AccessDenied", Message: "no"}
	err := fmt.Errorf("outer: %w", &Error{Op: "assume role x", Kind: ErrNoRole, Err: cause, Advice: "do y"})
	assert.EqualError(t, err, "outer: assume role x: role not assumed: api error AccessDenied: no (do y)")
	require.ErrorIs(t, err, ErrNoRole)
	assert.NotErrorIs(t, err, ErrNoToken)
	assert.Equal(t, "AccessDenied", code(err))
	assert.EqualError(t, &Error{Op: "a", Kind: ErrNoToken}, "a: no authorization token")
	require.ErrorIs(t, &Error{Op: "a", Kind: ErrNoToken}, ErrNoToken)
}

// Foreign text stays on one line, short, and without secrets.
func TestCleanError(t *testing.T) {
	var notified []string
	s := &redact.Secrets{Notify: func(v string) { notified = append(notified, v) }}
	s.Add("password", "", "password")
	s.Add("QVdTOnBhc3N3b3Jk")
	assert.Equal(t, []string{"password", "QVdTOnBhc3N3b3Jk"}, notified, "each once, the empty one never")

	plain := errors.New("plain")
	assert.Same(t, plain, s.Error(plain))

	lines := &smithy.GenericAPIError{Code: "X", Message: "one\n::error::forged\u2028" + strings.Repeat("x", 5000)}
	err := s.Error(lines)
	assert.NotContains(t, err.Error(), "\n")
	assert.Less(t, len(err.Error()), redact.MaxText+10)
	assert.Equal(t, "X", code(err), "it can still be found")

	quoting := &smithy.GenericAPIError{Code: "X", Message: "value 'password' or QVdTOnBhc3N3b3Jk"}
	err = s.Error(quoting)
	assert.EqualError(t, err, "api error X: value '(not shown)' or (not shown)")
	assert.Empty(t, code(err), "what it wrapped could be asked for its text")
}

// Errors that may pass are distinguished from those that will not: a pull that needs
// a new password in the middle tries again, or does not.
func TestTemporary(t *testing.T) {
	for what, c := range map[string]struct {
		quirks awstest.Quirks
		kind   error
		want   bool
	}{
		"ECR throttled":     {awstest.Quirks{ECRThrottled: true}, ErrNoToken, true},
		"ECR 503":           {awstest.Quirks{ECRStatus: 503}, ErrNoToken, true},
		"ECR no answer":     {awstest.Quirks{ECRNoAnswer: true}, ErrNoToken, true},
		"ECR denied":        {awstest.Quirks{ECRDenied: true}, ErrNoToken, false},
		"ECR malformed":     {awstest.Quirks{NotBase64: true}, ErrNoToken, false},
		"unrecognized":      {awstest.Quirks{UnrecognizedClient: true}, ErrNoToken, false},
		"STS throttled":     {awstest.Quirks{STSThrottled: true}, ErrNoRole, true},
		"STS 503":           {awstest.Quirks{STSStatus: 503}, ErrNoRole, true},
		"STS cut":           {awstest.Quirks{STSCut: true}, ErrNoRole, true},
		"GitHub not found":  {awstest.Quirks{IDPCommunicationError: true}, ErrNoRole, true},
		"no such provider":  {awstest.Quirks{InvalidIdentityToken: true}, ErrNoRole, false},
		"role denied":       {awstest.Quirks{RoleDenied: true}, ErrNoRole, false},
		"OIDC 503":          {awstest.Quirks{OIDCStatus: 503}, ErrNoIDToken, true},
		"OIDC cut":          {awstest.Quirks{OIDCCut: true}, ErrNoIDToken, true},
		"OIDC 403":          {awstest.Quirks{OIDCStatus: 403}, ErrNoIDToken, false},
		"OIDC without JSON": {awstest.Quirks{OIDCNotJSON: true}, ErrNoIDToken, false},
	} {
		r := newRig(t, c.quirks, nil)
		r.settings.ecrLimit = 200 * time.Millisecond
		_, err := r.resolve(private)
		require.ErrorIs(t, err, c.kind, what)
		var typed *Error
		require.ErrorAs(t, err, &typed, what)
		assert.Equal(t, c.want, typed.Temporary(), what)
	}
}
