package awsauth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	s := &secrets{tell: func(v string) { told = append(told, v) }}
	s.add("password", "", "password")
	s.add("QVdTOnBhc3N3b3Jk")
	assert.Equal(t, []string{"password", "QVdTOnBhc3N3b3Jk"}, told, "each once, the empty one never")

	plain := errors.New("plain")
	assert.Same(t, plain, s.cleanError(plain))

	lines := &smithy.GenericAPIError{Code: "X", Message: "one\n::error::forged\u2028" + strings.Repeat("x", 5000)}
	err := s.cleanError(lines)
	assert.NotContains(t, err.Error(), "\n")
	assert.Less(t, len(err.Error()), maxText+10)
	assert.Equal(t, "X", code(err), "it can still be told")

	quoting := &smithy.GenericAPIError{Code: "X", Message: "value 'password' or QVdTOnBhc3N3b3Jk"}
	err = s.cleanError(quoting)
	assert.EqualError(t, err, "api error X: value '(not shown)' or (not shown)")
	assert.Empty(t, code(err), "what it wrapped could be asked for its text")
}
