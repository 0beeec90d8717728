package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// A repository is one repository in one registry, logged in to on first use.
type repository struct {
	client *Client
	name   string // complete, as in references: docker.io/library/debian
	repo   name.Repository

	mu     sync.Mutex
	http   *http.Client // nil until logged in
	failed error        // of the last login
	at     time.Time    // when it failed
}

// failureKept is how long a failed login stands for those after it: many images
// that have a dead mirror in common would each wait for all of its retries.
const failureKept = time.Minute

// session returns the logged-in HTTP client.
func (r *repository) session(ctx context.Context) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http != nil {
		return r.http, nil
	}
	if r.failed != nil && time.Since(r.at) < failureKept {
		return nil, r.failed
	}
	c, err := r.client.login(ctx, r.repo)
	if err != nil {
		if ctx.Err() == nil {
			r.failed, r.at = err, time.Now()
		}
		return nil, err
	}
	r.http = c
	return r.http, nil
}

// get asks for a path below /v2/<repository>/ and returns the answer if its
// status is one of those wanted. The caller closes the body.
func (r *repository) get(ctx context.Context, path string, header http.Header, want ...int) (*http.Response, error) {
	session, err := r.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	u := url.URL{Scheme: r.repo.Scheme(), Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + path}
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
		return nil, err
	}
	return resp, nil
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
