package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
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
	return clean(text)
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
		return safe(err)
	}
	e := &Error{Op: op, Source: source, Kind: ErrUnreachable, Err: safe(err)}
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

var (
	// queries are the query strings of URLs: they sign the URLs of blob storage.
	queries = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?[^\s"']+`) })
	// bodies are what go-containerregistry appends when a token server's answer
	// has no token, and what it appends when a credential helper fails: either
	// may hold a secret.
	bodies = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("(?s)(bearer response:|out: `).*") })
)

// longest is how long an error's text may get, in bytes.
const longest = 1000

// clean makes a text fit to be shown: without secrets, on one line, of bounded
// length. Much of it is foreign: a registry could make it look like several
// lines of a log, or like a command to the runner that prints it.
func clean(text string) string {
	text = bodies().ReplaceAllString(text, "(not shown)")
	text = queries().ReplaceAllString(text, "?…")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// safe returns an error that may be shown, and so may each that it wraps: one
// whose text holds a secret is replaced by what clean leaves of it.
func safe(err error) error {
	err, _ = replaced(err)
	return err
}

// replaced is [safe], and tells whether anything was replaced.
func replaced(err error) (_ error, unsafe bool) {
	var causes []error
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		causes = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = slices.Clone(e.Unwrap())
	}
	causes = slices.DeleteFunc(causes, func(cause error) bool { return cause == nil })
	text := err.Error()
	unsafe = queries().MatchString(strings.ReplaceAll(text, "?…", "")) || bodies().MatchString(text)
	for i := range causes {
		cause, was := replaced(causes[i])
		causes[i], unsafe = cause, unsafe || was
	}
	if !unsafe {
		return err, false
	}
	return &cleaned{clean(text), causes}, true
}

// cleaned stands for an error whose text must not be shown.
type cleaned struct {
	text   string
	causes []error
}

func (e *cleaned) Error() string   { return e.text }
func (e *cleaned) Unwrap() []error { return e.causes }
