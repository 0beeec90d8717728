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
	err := fmt.Errorf("outer: %w", &Error{Op: "assume role x", Kind: ErrRole, Err: cause, Advice: "do y"})
	assert.EqualError(t, err, "outer: assume role x: role not assumed: api error AccessDenied: no (do y)")
	require.ErrorIs(t, err, ErrRole)
	assert.NotErrorIs(t, err, ErrECR)
	assert.Equal(t, "AccessDenied", code(err))
	assert.EqualError(t, &Error{Op: "a", Kind: ErrECR}, "a: no authorization token")
	require.ErrorIs(t, &Error{Op: "a", Kind: ErrECR}, ErrECR)
}

// Foreign text stays on one line, short, and without secrets.
func TestCleanError(t *testing.T) {
	var told []string
	s := &redact.Secrets{Notify: func(v string) { told = append(told, v) }}
	s.Add("password", "", "password")
	s.Add("QVdTOnBhc3N3b3Jk")
	assert.Equal(t, []string{"password", "QVdTOnBhc3N3b3Jk"}, told, "each once, the empty one never")

	plain := errors.New("plain")
	assert.Same(t, plain, s.Error(plain))

	lines := &smithy.GenericAPIError{Code: "X", Message: "one\n::error::forged\u2028" + strings.Repeat("x", 5000)}
	err := s.Error(lines)
	assert.NotContains(t, err.Error(), "\n")
	assert.Less(t, len(err.Error()), redact.MaxText+10)
	assert.Equal(t, "X", code(err), "it can still be told")

	quoting := &smithy.GenericAPIError{Code: "X", Message: "value 'password' or QVdTOnBhc3N3b3Jk"}
	err = s.Error(quoting)
	assert.EqualError(t, err, "api error X: value '(not shown)' or (not shown)")
	assert.Empty(t, code(err), "what it wrapped could be asked for its text")
}

// What AWS may do better later is told apart from what it will not: a pull that
// needs a new password in the middle goes on trying, or does not.
func TestTemporary(t *testing.T) {
	for what, c := range map[string]struct {
		quirks awstest.Quirks
		kind   error
		want   bool
	}{
		"ECR throttled":     {awstest.Quirks{ECRThrottled: true}, ErrECR, true},
		"ECR 503":           {awstest.Quirks{ECRStatus: 503}, ErrECR, true},
		"ECR no answer":     {awstest.Quirks{ECRNoAnswer: true}, ErrECR, true},
		"ECR denied":        {awstest.Quirks{ECRDenied: true}, ErrECR, false},
		"ECR malformed":     {awstest.Quirks{NotBase64: true}, ErrECR, false},
		"unrecognized":      {awstest.Quirks{UnrecognizedClient: true}, ErrECR, false},
		"STS throttled":     {awstest.Quirks{STSThrottled: true}, ErrRole, true},
		"STS 503":           {awstest.Quirks{STSStatus: 503}, ErrRole, true},
		"STS cut":           {awstest.Quirks{STSCut: true}, ErrRole, true},
		"GitHub not found":  {awstest.Quirks{IDPCommunicationError: true}, ErrRole, true},
		"no such provider":  {awstest.Quirks{InvalidIdentityToken: true}, ErrRole, false},
		"role denied":       {awstest.Quirks{RoleDenied: true}, ErrRole, false},
		"OIDC 503":          {awstest.Quirks{OIDCStatus: 503}, ErrIDToken, true},
		"OIDC cut":          {awstest.Quirks{OIDCCut: true}, ErrIDToken, true},
		"OIDC 403":          {awstest.Quirks{OIDCStatus: 403}, ErrIDToken, false},
		"OIDC without JSON": {awstest.Quirks{OIDCNotJSON: true}, ErrIDToken, false},
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
