package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// The kinds of trouble. Every [*Error] wraps one of them.
var (
	// ErrReference: not a reference that a registry could be asked for.
	ErrReference = errors.New("unusable reference")
	// ErrNotFound: the registry is there, the image or blob is not. Some
	// registries say so of what one may not see.
	ErrNotFound = errors.New("not found")
	// ErrDenied: credentials are missing, wrong, or not sufficient.
	ErrDenied = errors.New("denied")
	// ErrCredentials: a keychain failed and none after it has a credential, so
	// the registry was not asked.
	ErrCredentials = errors.New("no credentials")
	// ErrUnreachable: no answer, or only answers such as 429 and 503 that may
	// be better later, after all retries.
	ErrUnreachable = errors.New("unreachable")
	// ErrAnswer: what came back is not what a registry answers.
	ErrAnswer = errors.New("not a registry's answer")
	// ErrDigest: the bytes do not have the digest that they were asked by, or
	// that the registry states for them.
	ErrDigest = errors.New("wrong digest")
	// ErrSize: a blob is shorter or longer than the manifest declares.
	ErrSize = errors.New("wrong size")
	// ErrRange: the registry ignores ranges, so a blob can be read only from its
	// beginning.
	ErrRange = errors.New("no ranges")
	// ErrDisagree: a mirror and the image's own registry do not have the same
	// image, see [Options.MirrorsMustAgree].
	ErrDisagree = errors.New("mirror disagrees")
	// ErrPlatform: an index has no image for the platform.
	ErrPlatform = errors.New("no such platform")
	// ErrUnsupported: a manifest of a kind that cannot be stocked.
	ErrUnsupported = errors.New("unsupported manifest")
)

// An Error says what was done to what when it failed, and the kind of trouble.
type Error struct {
	// Op is what was done, such as "resolve" or "read blob sha256:…".
	Op string
	// Source is the reference or repository that it was done to.
	Source string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause; nil when the kind says it all. It may be shown, and so may
	// all that it wraps: what would quote a secret has another text, and type.
	Err error

	retryAfter time.Duration
}

// Temporary tells whether the same request may go better later.
func (e *Error) Temporary() bool {
	if e.Kind == ErrCredentials { // what a keychain asks in turn may be down
		var t interface{ Temporary() bool }
		return errors.As(e.Err, &t) && t.Temporary()
	}
	return e.Kind == ErrUnreachable
}

// RetryAfter returns how long the registry asks to wait before the next
// request; 0 if it did not say.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// IgnoresRange tells whether the registry serves blobs only from their
// beginning, so that they can be read in one piece alone.
func (e *Error) IgnoresRange() bool { return e.Kind == ErrRange }

func (e *Error) Error() string {
	text := e.Op + " " + e.Source + ": " + e.Kind.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return redact.Text(text)
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// newError makes an Error of whatever a request ended with. A context that
// ended is not the registry's trouble, so its cause is returned as it is.
func newError(ctx context.Context, op, source string, err error) error {
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	var aside *asideError
	if errors.As(err, &aside) {
		var before *Error
		if err := newError(ctx, op, source, aside.err); !errors.As(err, &before) {
			return err // the context has ended meanwhile
		}
		return &Error{Op: op, Source: source, Kind: before.Kind, Err: fmt.Errorf("not asked again so soon: %w", before.Err), retryAfter: before.retryAfter}
	}
	var done *Error
	if errors.As(err, &done) {
		if done.Kind == ErrCredentials { // of a login on the way
			return &Error{Op: op, Source: source, Kind: done.Kind, Err: done.Err}
		}
		return redact.Error(err)
	}
	e := &Error{Op: op, Source: source, Kind: ErrUnreachable, Err: redact.Error(err)}
	var status *statusError
	if errors.As(err, &status) {
		e.retryAfter = status.retryAfter
	}
	var answer *transport.Error
	var certificate *tls.CertificateVerificationError
	// Of a loopback registry that was tried with TLS and without, the first says
	// more: the second got "you are speaking plain HTTP".
	if errors.As(err, &answer) && !errors.As(err, &certificate) {
		e.Kind, e.Err = kindOf(answer), errors.New(answerText(answer))
		if status != nil && status.redirected && e.Kind == ErrDenied {
			// Blob storage says so when the signature of the URL has expired.
			// The registry signs a new one, so it is worth asking again.
			e.Kind = ErrUnreachable
		}
		var denied denials
		if errors.As(err, &denied) && e.Kind == ErrDenied {
			if failed := denied.failed(); failed != nil {
				e.Err = fmt.Errorf("%w (asked with: %s; failed: %w)", e.Err, denied.asked(), failed)
			} else {
				e.Err = fmt.Errorf("%w (asked with: %s)", e.Err, denied.asked())
			}
		}
	}
	return e
}

func kindOf(e *transport.Error) error {
	switch status := e.StatusCode; {
	case status == http.StatusNotFound && e.Request != nil && e.Request.URL.Path == "/v2/":
		return ErrAnswer // every registry has /v2/, that is how one is told
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusTooManyRequests || status >= 500:
		return ErrUnreachable
	}
	return ErrAnswer
}

// answerText is what a registry said. An answer that is not in the form of the
// specification, such as an HTML page, is only named by its status.
func answerText(e *transport.Error) string {
	text := fmt.Sprintf("status %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	for _, d := range e.Errors {
		text += fmt.Sprintf(": %s %s", d.Code, d.Message)
	}
	return text
}
