package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// The kinds of errors. Every [*Error] wraps one of them.
var (
	// ErrInvalidReference: not a reference that a registry could be asked for.
	ErrInvalidReference = errors.New("invalid reference")
	// ErrNotFound: the registry does not have the image or blob. Some registries
	// answer so for what the credential may not read.
	ErrNotFound = errors.New("not found")
	// ErrDenied: credentials are missing, wrong, or not sufficient.
	ErrDenied = errors.New("denied")
	// ErrNoCredentials: a keychain failed and none after it has a credential, so
	// the registry was not asked.
	ErrNoCredentials = errors.New("no credentials")
	// ErrUnreachable: after all retries there was no answer, or only answers such
	// as 429 and 503 that may be better later; of a blob after one request. It is
	// temporary.
	ErrUnreachable = errors.New("unreachable")
	// ErrInvalidAnswer: the answer is not that of a registry.
	ErrInvalidAnswer = errors.New("not a registry's answer")
	// ErrDigest: the bytes do not have the digest that they were asked for by, or
	// that the registry states for them.
	ErrDigest = errors.New("wrong digest")
	// ErrSize: a blob is shorter or longer than the manifest declares.
	ErrSize = errors.New("wrong size")
	// ErrNoRanges: the registry ignores or refuses ranges of a blob, so it can be read
	// only as a whole.
	ErrNoRanges = errors.New("no ranges")
	// ErrDisagree: a mirror and the image's own registry do not have the same
	// image, see [Options.MirrorsMustAgree].
	ErrDisagree = errors.New("mirror disagrees")
	// ErrNoPlatform: an index has no image for the platform.
	ErrNoPlatform = errors.New("no such platform")
	// ErrCertificate: the registry's certificate is not trusted or not good, or it
	// wants one of the client, see [Options.CAs] and [Options.CertDirs].
	ErrCertificate = errors.New("certificate")
	// ErrLocalAddress: a registry leads to an address of this machine or its
	// network, see [Options.AllowLocal]. The error is one of kind
	// [ErrInvalidAnswer] and wraps this one too.
	ErrLocalAddress = errors.New("leads to a local address")
	// ErrUnsupported: a manifest of a kind that this package does not read, or a
	// digest of another algorithm than sha256.
	ErrUnsupported = errors.New("unsupported")
)

// ErrNoImage is wrapped, together with [ErrNoPlatform], when an index has no image for
// any platform, so that asking for another one is of no use.
var ErrNoImage = errors.New("the index lists no image at all")

// A TemporaryError is an error that knows whether the same call may succeed
// later. An error of a keychain may be one; without the method it is permanent.
type TemporaryError interface {
	error
	Temporary() bool
}

// An Error is what was done to what when it failed, and the kind of error.
type Error struct {
	// Op is what was done, such as "resolve" or "read blob sha256:…".
	Op string
	// Source is the reference or repository that it was done to.
	Source string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause, or nil. It may be shown, and so may all that it wraps: an
	// error that would quote a secret is replaced by one with another text.
	Err error

	retryAfter time.Duration
	refused    bool // by a host that asked for a delay, see gates
}

// Temporary reports whether the same request may succeed later: of the kinds,
// [ErrUnreachable] is temporary, and [ErrNoCredentials] if the keychain's error is.
func (e *Error) Temporary() bool {
	if e.Kind == ErrNoCredentials { // the server that a keychain asks may be down
		var t TemporaryError
		return errors.As(e.Err, &t) && t.Temporary()
	}
	return e.Kind == ErrUnreachable
}

// RetryAfter returns how long to wait before the next request, a minute at most: what
// the registry asks for, or what is left of that if it was not asked again, since its
// host refuses requests. 0 is no wish. Callers of many ranges should add some time at
// random, so that these do not come at the same moment.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// IgnoresRange reports whether the registry serves this blob only as a whole, so that
// it can be read only in one piece: from offset 0 to its end.
func (e *Error) IgnoresRange() bool { return e.Kind == ErrNoRanges }

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

// newError makes an Error of any error of a request. When ctx has ended, that is
// the error, and not the registry's.
//
// It is the place where secrets are taken out: every error of a request passes it.
func (s *shared) newError(ctx context.Context, op, source string, err error) error {
	if ended := wait.Err(ctx); ended != nil {
		return ended
	}
	var aside *asideError
	if errors.As(err, &aside) {
		var before *Error
		if err := s.newError(ctx, op, source, aside.err); !errors.As(err, &before) {
			return err // the context has ended meanwhile
		}
		return &Error{Op: op, Source: source, Kind: before.Kind, Err: fmt.Errorf("not asked again so soon: %w", before.Err), retryAfter: before.retryAfter, refused: before.refused}
	}
	var done *Error
	if errors.As(err, &done) {
		if done.Kind == ErrNoCredentials { // of a login on the way
			return s.clean(&Error{Op: op, Source: source, Kind: done.Kind, Err: done.Err})
		}
		if clean := s.clean(done); err == error(done) {
			return clean
		} else {
			return &textError{s.secrets.Text(err.Error()), clean}
		}
	}
	e := &Error{Op: op, Source: source, Kind: ErrUnreachable, Err: s.secrets.Error(err)}
	var status *statusError
	if errors.As(err, &status) {
		e.retryAfter = status.retryAfter
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		e.retryAfter, e.refused = refused.delay, true
	}
	var answer *transport.Error
	// A loopback registry is tried with TLS and without. The first error says
	// more: the second one is "you are speaking plain HTTP".
	switch {
	case errors.Is(err, ErrLocalAddress):
		e.Kind = ErrInvalidAnswer
	case isCertificate(err):
		e.Kind = ErrCertificate
	case errors.As(err, &answer):
		text := answerText(answer)
		if refused != nil && refused.early {
			text = fmt.Sprintf("not asked, since %s refuses requests for another %v: %s", refused.host, max(refused.delay.Round(time.Millisecond), time.Millisecond), text)
		}
		e.Kind, e.Err = kindOf(answer), errors.New(s.secrets.Text(text))
		if status != nil && status.signature {
			// Blob storage denies a URL whose signature has expired. The registry
			// signs a new one, so it is worth asking again.
			e.Kind = ErrUnreachable
		}
		var denied denials
		if errors.As(err, &denied) && e.Kind == ErrDenied {
			e.Err = denied.explain(e.Err)
		}
	}
	return s.clean(e)
}

// clean returns e without secrets.
func (s *shared) clean(e *Error) *Error {
	clean := *e
	clean.Op, clean.Source, clean.Err = s.secrets.Text(e.Op), s.secrets.Text(e.Source), s.secrets.Error(e.Err)
	return &clean
}

// A textError is an error with another text.
type textError struct {
	text string
	error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.error }

// isCertificate reports whether a connection failed because one side does not trust
// the other's certificate. For what the other side reports crypto/tls has no type.
func isCertificate(err error) bool {
	var invalid *tls.CertificateVerificationError
	if errors.As(err, &invalid) {
		return true
	}
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(remote.Error(), "certificate")
}

func kindOf(e *transport.Error) error {
	switch status := e.StatusCode; {
	case status == http.StatusNotFound && e.Request != nil && e.Request.URL.Path == "/v2/":
		return ErrInvalidAnswer // every registry has /v2/
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusTooManyRequests || status >= 500:
		return ErrUnreachable
	}
	return ErrInvalidAnswer
}

// answerText is the text of a registry's error. Of an answer that is not in the
// form of the specification, such as an HTML page, it is only the status.
func answerText(e *transport.Error) string {
	text := fmt.Sprintf("status %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	for _, d := range e.Errors {
		text += fmt.Sprintf(": %s %s", d.Code, d.Message)
	}
	return text
}

// withoutRequest returns an error that may be logged: that of go-containerregistry
// for an answer has the URL of the request, and the whole answer.
func withoutRequest(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return errors.New(answerText(answer))
	}
	return err
}

// A statusError is an answer with a status that was not wanted.
type statusError struct {
	error
	status     int
	redirected bool // it came from where the registry redirected to
	signature  bool // blob storage finds the signature of its URL expired
	retryAfter time.Duration
	// contentRange is the header of an answer 416, which may state the size.
	contentRange string
}

func (e *statusError) Unwrap() error { return e.error }

// isDenied reports whether an error is the registry's or token server's refusal
// of a credential; blob storage refuses its own signature.
func isDenied(err error) bool {
	var status *statusError
	if errors.As(err, &status) && status.redirected {
		return false
	}
	var answer *transport.Error
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}

// An asideError is why a source was passed over without being asked.
type asideError struct{ err error }

func (e *asideError) Error() string { return e.err.Error() }
func (e *asideError) Unwrap() error { return e.err }

// denials are the answers of the registry to each of the credentials, in order.
type denials []denial

type denial struct {
	credential string // its name
	failed     error  // of the keychains before it
	err        error
}

func (d denials) Error() string { return d[len(d)-1].err.Error() }

// Unwrap returns the first denial: where all are denied, the first credential is
// the one that was meant to work. An error of another kind is the last one.
func (d denials) Unwrap() error {
	if last := d[len(d)-1].err; !isDenied(last) {
		return last
	}
	return d[0].err
}

// explain adds to err which credentials were tried, and the error of the
// keychains that were passed over: their credential may be the one that the
// registry wants.
func (d denials) explain(err error) error {
	var names []string
	var failed error
	for _, one := range d {
		names = append(names, one.credential)
		if failed == nil {
			failed = one.failed
		}
	}
	asked := strings.Join(slices.Compact(names), ", then ")
	if failed != nil {
		return fmt.Errorf("%w (asked with: %s; failed: %w)", err, asked, failed)
	}
	return fmt.Errorf("%w (asked with: %s)", err, asked)
}

// IsNotFound reports whether every reference that was tried does not exist. [errors.Is]
// with [ErrNotFound] reports whether any of them does not: the others may have been
// unreachable.
func IsNotFound(err error) bool {
	var all sourceErrors
	if !errors.As(err, &all) {
		return errors.Is(err, ErrNotFound)
	}
	return !slices.ContainsFunc(all, func(err error) bool { return !errors.Is(err, ErrNotFound) })
}

// sourceErrors are the errors of all sources of one image, in order. Each wraps
// an [*Error].
type sourceErrors []error

func (e sourceErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e sourceErrors) Unwrap() []error { return e }

// RetryAfter returns the longest wait that any of the sources asks for: all of
// them are asked again.
func (e sourceErrors) RetryAfter() (longest time.Duration) {
	e.any(func(err *Error) bool { longest = max(longest, err.RetryAfter()); return false })
	return longest
}

// IgnoresRange reports whether any of the sources could give the blob in one
// piece. Without it the first error would speak for all.
func (e sourceErrors) IgnoresRange() bool { return e.any((*Error).IgnoresRange) }

// Temporary reports whether any of the sources may do better later.
func (e sourceErrors) Temporary() bool { return e.any((*Error).Temporary) }

func (e sourceErrors) any(is func(*Error) bool) bool {
	return slices.ContainsFunc(e, func(err error) bool {
		var one *Error
		return errors.As(err, &one) && is(one)
	})
}
