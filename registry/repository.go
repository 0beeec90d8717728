package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/internal/imagespec"
)

// maxManifest is the largest manifest that is read, in bytes: what the
// distribution registry accepts.
const maxManifest = 4 << 20

// accepted are the kinds of manifest that are asked for. Without the first two
// an old registry converts to schema 1.
var accepted = []string{
	string(types.DockerManifestSchema2), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.OCIImageIndex),
}

// A repository is one repository in one registry, logged in to on first use. It
// is safe for concurrent use.
type repository struct {
	sessions
	reading   atomic.Int64           // how many ranges of blobs are in flight
	probes    singleflight.Group     // by digest, see readRange
	rangeless rangeless              // blobs of which it serves no ranges
	storage   atomic.Pointer[string] // the host that served a blob last, or refused to; nil if it is the registry's own
}

// wait returns how long the repository is not to be asked for blobs.
func (r *repository) wait() time.Duration {
	if refused := r.refusal(); refused != nil {
		return max(r.health.wait(), refused.delay)
	}
	return r.health.wait()
}

// refusal returns the error of a range that would be asked for now, if the registry's host
// or that of its storage refuses requests at the moment.
func (r *repository) refusal() *refusedError {
	longest := r.gates.refusal(r.origin.host)
	if storage := r.storage.Load(); storage != nil {
		if refused := r.gates.refusal(*storage); refused != nil && (longest == nil || refused.delay > longest.delay) {
			longest = refused
		}
	}
	return longest
}

// settle records in the repository's health how a request ended. That a registry
// ignores ranges is no failure: it serves whole blobs. Nor is it one that its host asks
// for a delay: nothing is asked of it until that has passed.
func (r *repository) settle(ctx context.Context, err error) {
	var refused *Error
	if errors.Is(err, ErrNoRanges) || errors.As(err, &refused) && refused.refused {
		err = errNeutral
	}
	if d := r.health.settle(err); d > 0 {
		r.log.WarnContext(ctx, "source keeps failing, any other is asked before it", "source", r.name, "for", d, "error", err)
	}
}

// resolved sets the repository aside if it did not answer when it was asked for
// an image: these requests were repeated already. A login has done so itself.
func (r *repository) resolved(ctx context.Context, err error) {
	if err != nil && errors.Is(r.newError(ctx, "resolve", r.name, err), ErrUnreachable) && r.health.asideFor() == nil {
		r.health.fail(err)
	}
}

// get asks for a path below /v2/<repository>/ and returns the answer if its
// status is one of those wanted. A request that is denied is tried with every
// other credential, and without one. The caller closes the body.
func (r *repository) get(ctx context.Context, path string, header http.Header, want ...int) (*http.Response, error) {
	s, err := r.first(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	var denied denials
	var tried []*session
	for signed := false; ; {
		var sent *authn.AuthConfig
		resp, err := r.send(context.WithValue(ctx, sentKey{}, &sent), s, path, header, want...)
		var status *statusError
		switch {
		case err == nil:
			r.answered(ctx, s, denied)
			return resp, nil
		case errors.As(err, &status) && status.signature && !signed:
			signed = true // the registry signs another URL when it is asked again
			continue
		case !isDenied(err):
			if status != nil {
				r.answered(ctx, s, denied)
			}
			return nil, err
		}
		denied, tried = append(denied, denial{s.credential.name, s.credential.failed, err}), append(tried, s)
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

func (r *repository) send(ctx context.Context, s *session, path string, header http.Header, want ...int) (*http.Response, error) {
	u := url.URL{Scheme: s.scheme, Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + path}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, originKey{}, r.origin), http.MethodGet, u.String(), nil)
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
	if !slices.Contains(want, resp.StatusCode) {
		defer resp.Body.Close()
		delay := delayOf(resp.Header, textOf(resp))
		redirected := resp.Request.URL.Host != u.Host
		// Another registry denies in the same words, but its challenge shows what it wants.
		signature := redirected && strings.HasPrefix(path, "blobs/") &&
			(resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized && len(challengesOf(resp)) == 0)
		return nil, &statusError{transport.CheckError(resp), resp.StatusCode, redirected, signature, delay, resp.Header.Get("Content-Range")}
	}
	return resp, nil
}

// A manifest is what a registry served under a tag or digest, verified to have
// that digest and to be of a known kind.
type manifest struct {
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
}

// manifest fetches the manifest called tagOrDigest. With a digest the bytes
// must have it.
func (r *repository) manifest(ctx context.Context, tagOrDigest string) (*manifest, error) {
	resp, err := r.get(ctx, "manifests/"+tagOrDigest, http.Header{"Accept": {strings.Join(accepted, ", ")}}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	fail := func(kind error, format string, args ...any) (*manifest, error) {
		return nil, &Error{Op: "read manifest", Source: r.name + joiner(tagOrDigest) + tagOrDigest, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if len(raw) > maxManifest {
		return fail(ErrUnsupported, "more than %d bytes", maxManifest)
	}
	contentType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" if malformed
	if err := json.Unmarshal(raw, new(json.RawMessage)); err != nil {
		return fail(ErrInvalidAnswer, "the manifest is not JSON (%d bytes of type %q): %w", len(raw), contentType, err)
	}
	own, err := imagespec.MediaType(raw)
	if err != nil {
		return nil, documentError("read manifest", r.name+joiner(tagOrDigest)+tagOrDigest, err)
	}
	m := &manifest{raw: raw, digest: imagespec.DigestOf(raw), mediaType: own}
	served := types.MediaType(contentType)
	switch {
	case own == "":
		m.mediaType = served
	case served.IsImage() && served != own, served.IsIndex() && served != own:
		return fail(ErrInvalidAnswer, "served as %q, but says of itself %q", served, own)
	}
	if !m.mediaType.IsImage() && !m.mediaType.IsIndex() {
		return fail(ErrUnsupported, "media type %q", m.mediaType)
	}
	if isDigest(tagOrDigest) && m.digest.String() != tagOrDigest {
		return fail(ErrDigest, "its bytes have the digest %s", m.digest)
	}
	// Absent is fine, the header is optional. A digest of another algorithm
	// cannot be compared.
	if stated := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(stated, "sha256:") && stated != m.digest.String() {
		return fail(ErrDigest, "the registry states %s, its bytes have the digest %s", stated, m.digest)
	}
	return m, nil
}

func isDigest(tagOrDigest string) bool { return strings.Contains(tagOrDigest, ":") }

func joiner(tagOrDigest string) string {
	if isDigest(tagOrDigest) {
		return "@"
	}
	return ":"
}

// listed fetches the manifest or index that an index lists, and checks that it is what
// the index declares.
func (r *repository) listed(ctx context.Context, d v1.Descriptor) (*manifest, error) {
	source := r.name + "@" + d.Digest.String()
	m, err := r.manifest(ctx, d.Digest.String())
	if err != nil {
		return nil, r.newError(ctx, "read manifest", source, err)
	}
	if int64(len(m.raw)) != d.Size || m.mediaType != d.MediaType {
		return nil, &Error{Op: "read manifest", Source: source, Kind: ErrInvalidAnswer,
			Err: fmt.Errorf("the index declares %d bytes of type %q, there are %d of type %q", d.Size, d.MediaType, len(m.raw), m.mediaType)}
	}
	return m, nil
}

// readBlob reads a whole blob of at most limit bytes and verifies its digest. It
// is for configs, which are kept in memory. what is what it is called in errors.
func (r *repository) readBlob(ctx context.Context, what string, d v1.Descriptor, limit int64) ([]byte, error) {
	op := "read " + what + " " + d.Digest.String() + " of"
	fail := func(kind error, format string, args ...any) ([]byte, error) {
		return nil, &Error{Op: op, Source: r.name, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if d.Size > limit {
		return fail(ErrUnsupported, "%d bytes, more than %d", d.Size, limit)
	}
	resp, err := r.get(forBlob(ctx), "blobs/"+d.Digest.String(), http.Header{}, http.StatusOK)
	if err != nil {
		return nil, r.newError(ctx, op, r.name, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, d.Size+1))
	if err != nil {
		return nil, r.newError(ctx, op, r.name, err)
	}
	if int64(len(raw)) != d.Size {
		return fail(ErrSize, "declared are %d bytes, %s", d.Size, atLeast(int64(len(raw)), d.Size))
	}
	if got := imagespec.DigestOf(raw); got != d.Digest {
		return fail(ErrDigest, "its bytes have the digest %s", got)
	}
	return raw, nil
}

func atLeast(got, declared int64) string {
	if got > declared {
		return "there are more"
	}
	return fmt.Sprintf("there are %d", got)
}
