package awsauth

import (
	"errors"

	"github.com/aws/smithy-go"
)

// The kinds of trouble. Every [*Error] wraps one of them.
var (
	// ErrOptions: an option has a value that cannot work.
	ErrOptions = errors.New("bad option")
	// ErrConfig: AWS's configuration, in files or in the environment, cannot be
	// used.
	ErrConfig = errors.New("unusable AWS configuration")
	// ErrNoCredentials: no role was assumed, and the SDK's default chain has no
	// credentials either.
	ErrNoCredentials = errors.New("no AWS credentials")
	// ErrIDToken: GitHub gave no ID token, so STS was not asked.
	ErrIDToken = errors.New("no ID token")
	// ErrRole: STS did not give the role's credentials.
	ErrRole = errors.New("role not assumed")
	// ErrECR: ECR gave no authorization token.
	ErrECR = errors.New("no authorization token")
)

// An Error says what was done when it failed, the kind of trouble, and what to
// do about it, on one line and without a secret.
type Error struct {
	// Op is what was done to what, such as "assume role arn:aws:…".
	Op string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause. Errors of AWS can be found in it as smithy.APIError,
	// unless they quote a secret.
	Err error
	// Advice is what to do; empty when nothing is known that would help.
	Advice string

	temporary bool
}

// Temporary tells whether the same may go better later: the last answer, after
// all retries, was that too many ask or that the service is not available, or
// there was none.
func (e *Error) Temporary() bool { return e.temporary }

func (e *Error) Error() string {
	text := e.Op + ": " + e.Kind.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Advice != "" {
		text += " (" + e.Advice + ")"
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// code returns the code of an error of AWS, such as "AccessDenied"; empty if err
// has none.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
