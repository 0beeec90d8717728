package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
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
	// ErrCredentials: Docker's config file or a credential helper failed, so the
	// registry was not asked.
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
	// Err is the cause; nil when the kind says it all.
	Err error
}

func (e *Error) Error() string {
	text := e.Op + " " + e.Source + ": " + e.Kind.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
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

// newError makes an Error of whatever a request ended with. A context that
// ended is not the registry's trouble, so its cause is returned as it is.
func newError(ctx context.Context, op, source string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	e := &Error{Op: op, Source: source, Kind: ErrUnreachable, Err: redact(err)}
	var answer *transport.Error
	var refused *plainHTTPError
	switch {
	case errors.As(err, &answer):
		e.Kind, e.Err = kindOf(answer), errors.New(answerText(answer))
	case errors.As(err, &refused):
		e.Err = refused
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

// answerText is what a registry said, in one short line. An answer's body is
// foreign text: an HTML page of any length, or a line made to look like ours.
func answerText(e *transport.Error) string {
	text := fmt.Sprintf("status %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	for _, d := range e.Errors {
		text += fmt.Sprintf(": %s %s", d.Code, d.Message)
	}
	const longest = 300
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// redact takes the query string out of the URL that net/http puts into its
// errors: it signs the URLs of blob storage.
func redact(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	where := u.URL
	if parsed, parseErr := url.Parse(u.URL); parseErr == nil {
		where = parsed.Scheme + "://" + parsed.Host + parsed.Path
	}
	return fmt.Errorf("%s %s: %w", strings.ToUpper(u.Op), where, redact(u.Err))
}
