package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"
)

// A repository is one repository in one registry, logged in to on first use.
type repository struct {
	client *Client
	name   string // complete, as in references: docker.io/library/debian
	repo   name.Repository

	logins   singleflight.Group
	http     atomic.Pointer[session] // nil until logged in
	failed   atomic.Pointer[failure] // of the last login
	noRanges atomic.Bool             // it answered a range with the whole blob
}

type failure struct {
	err error
	at  time.Time
}

// failureKept is how long a failed login lets a mirror be passed over: many
// images with a dead mirror in common would each wait for all of its retries.
const failureKept = time.Minute

// recentFailure returns why a login failed not long ago, nil if none did.
func (r *repository) recentFailure() error {
	if f := r.failed.Load(); f != nil && time.Since(f.at) < failureKept {
		return f.err
	}
	return nil
}

// login returns the session, which is made on first use. Who comes while a login
// is under way waits for that one, no longer than its own context allows.
func (r *repository) login(ctx context.Context) (*session, error) {
	if c := r.http.Load(); c != nil {
		return c, nil
	}
	// The login is everybody's, so it does not end with the first one's context.
	login := r.logins.DoChan("", func() (any, error) {
		// With retries, even for a range of a blob: a failure is remembered.
		ctx := context.WithValue(context.WithoutCancel(ctx), onceKey{}, nil)
		c, err := r.client.login(ctx, r.repo)
		if err != nil {
			r.failed.Store(&failure{err, time.Now()})
			return nil, err
		}
		r.failed.Store(nil)
		r.http.Store(c)
		return c, nil
	})
	select {
	case done := <-login:
		if done.Err != nil {
			return nil, done.Err
		}
		return done.Val.(*session), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// get asks for a path below /v2/<repository>/ and returns the answer if its
// status is one of those wanted. The caller closes the body.
func (r *repository) get(ctx context.Context, path string, header http.Header, want ...int) (*http.Response, error) {
	session, err := r.login(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	u := url.URL{Scheme: session.scheme, Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	// Otherwise net/http asks for gzip and unpacks it: other bytes, no length.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := session.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, want...); err != nil {
		resp.Body.Close()
		return nil, &statusError{err, resp.Request.URL.Host != u.Host, retryAfter(resp.Header)}
	}
	return resp, nil
}

// statusError is an answer with a status that was not wanted.
type statusError struct {
	error
	redirected bool // it came from where the registry redirected to
	retryAfter time.Duration
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
