package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/internal/redact"
)

// A repository is one repository in one registry, logged in to on first use.
type repository struct {
	client *Client
	name   string // complete, as in references: docker.io/library/debian
	repo   name.Repository

	logins    singleflight.Group
	challenge atomic.Pointer[transport.Challenge] // nil until the registry was asked
	session   atomic.Pointer[session]             // the one that worked last, or is tried first; nil if none
	health    health
	reading   atomic.Int64 // how many ranges of blobs are under way
	noRanges  atomic.Bool  // it answered a range with the whole blob
}

// get asks for a path below /v2/<repository>/ and returns the answer if its
// status is one of those wanted. A request that is denied is tried with every
// other credential, and without one. The caller closes the body.
func (r *repository) get(ctx context.Context, path string, header http.Header, want ...int) (*http.Response, error) {
	s, err := r.session.Load(), error(nil)
	if s == nil {
		if s, err = r.open(ctx, 0); err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		r.session.CompareAndSwap(nil, s)
	}
	var denied denials
	var tried []*session
	for signed := false; ; {
		var sent *authn.AuthConfig
		resp, err := r.send(context.WithValue(ctx, sentKey{}, &sent), s, path, header, want...)
		var status *statusError
		switch {
		case err == nil:
			r.answered(s, denied)
			return resp, nil
		case errors.As(err, &status) && status.refusesSignature() && !signed:
			signed = true // the registry signs another URL when it is asked again
			continue
		case !isDenied(err):
			if status != nil {
				r.answered(s, denied)
			}
			return nil, err
		}
		denied, tried = append(denied, denial{s.credential, err}), append(tried, s)
		s, err = r.instead(ctx, s, sent, tried)
		var more denials // of a token server
		if s == nil {
			r.forget(tried)
		}
		switch {
		case isDenied(err) && errors.As(err, &more):
			return nil, append(denied, more...)
		case s == nil && err == nil:
			return nil, denied
		case err != nil:
			return nil, fmt.Errorf("log in again: %w", err)
		}
	}
}

// answered remembers the session that the registry answers to.
func (r *repository) answered(s *session, denied denials) {
	r.session.Store(s)
	if !s.worked.Swap(true) {
		r.client.options.Logger.Info("answered", "source", r.name, "credential", s.credential.name)
	}
	for _, d := range denied {
		r.client.options.Logger.Info("the credential before was denied", "source", r.name, "denied", d.credential.name, "answered", s.credential.name, "error", redact.Text(d.err.Error()))
	}
}

// forget drops a session that was denied before it was ever answered: the next
// request begins with the keychains, which may have something else by then.
func (r *repository) forget(tried []*session) {
	for _, s := range tried {
		if !s.worked.Load() {
			r.session.CompareAndSwap(s, nil)
		}
	}
}

func (r *repository) send(ctx context.Context, s *session, path string, header http.Header, want ...int) (*http.Response, error) {
	u := url.URL{Scheme: s.scheme, Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	// Otherwise net/http asks for gzip and unpacks it: other bytes, no length.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, want...); err != nil {
		resp.Body.Close()
		return nil, &statusError{err, resp.StatusCode, resp.Request.URL.Host != u.Host, retryAfter(resp.Header)}
	}
	return resp, nil
}

// statusError is an answer with a status that was not wanted.
type statusError struct {
	error
	status     int
	redirected bool // it came from where the registry redirected to
	retryAfter time.Duration
}

// refusesSignature tells whether blob storage finds the signature of its URL
// expired.
func (e *statusError) refusesSignature() bool {
	return e.redirected && (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden)
}

func (e *statusError) Unwrap() error { return e.error }

// retryAfter reads the header Retry-After, in seconds or as a date; 0 if absent.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// readBlob reads a whole blob of at most limit bytes and proves its digest. It
// is for configs, which are held in memory.
func (r *repository) readBlob(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, &Error{Op: "read blob " + d.Digest.String(), Source: r.name, Kind: ErrUnsupported, Err: fmt.Errorf("%d bytes, more than %d", d.Size, limit)}
	}
	resp, err := r.get(ctx, "blobs/"+d.Digest.String(), http.Header{}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, d.Size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != d.Size {
		return nil, &Error{Op: "read blob " + d.Digest.String(), Source: r.name, Kind: ErrSize, Err: fmt.Errorf("declared are %d bytes, %s", d.Size, atLeast(int64(len(raw)), d.Size))}
	}
	if got := sha256Of(raw); got != d.Digest {
		return nil, &Error{Op: "read blob " + d.Digest.String(), Source: r.name, Kind: ErrDigest, Err: fmt.Errorf("its bytes have the digest %s", got)}
	}
	return raw, nil
}

func atLeast(got, declared int64) string {
	if got > declared {
		return "there are more"
	}
	return fmt.Sprintf("there are %d", got)
}
