package awsauth

import (
	"errors"

	"github.com/aws/smithy-go"
)

// The kinds of errors. Every [*Error] wraps one of them.
var (
	// ErrInvalidOptions: an option has a value that cannot work.
	ErrInvalidOptions = errors.New("bad option")
	// ErrInvalidConfig: AWS's configuration, in files or in the environment,
	// cannot be used.
	ErrInvalidConfig = errors.New("unusable AWS configuration")
	// ErrNoCredentials: no role was assumed, and the SDK's default chain has no
	// credentials either.
	ErrNoCredentials = errors.New("no AWS credentials")
	// ErrNoIDToken: GitHub returned no ID token, so STS was not asked.
	ErrNoIDToken = errors.New("no ID token")
	// ErrNoRole: STS did not return the role's credentials.
	ErrNoRole = errors.New("role not assumed")
	// ErrNoToken: ECR returned no authorization token.
	ErrNoToken = errors.New("no authorization token")
)

// An Error is what was done when it failed, the kind of error, and what to do
// about it. Its text is one line without a secret.
type Error struct {
	// Op is what was done to what, such as "assume role arn:aws:…".
	Op string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause, or nil. Errors of AWS can be found in it as
	// smithy.APIError, unless they quote a secret.
	Err error
	// Advice is what to do about it; empty when nothing is known that would help.
	Advice string

	temporary bool
}

// Temporary reports whether the same call may succeed later: the last answer,
// after all retries, was that there are too many requests or that the service is
// not available, or there was none.
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

// code returns the code of an error of AWS, such as "AccessDenied"; empty if there
// is none.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
