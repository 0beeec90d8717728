package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/wait"
)

// readRange asks for a range of a blob whose whole size is declared, once. The caller
// has counted it in r.reading; the body's Close subtracts it.
//
// A range that is refused, but that the whole blob would answer, is [ErrNoRanges]. What
// surely is about the range is taken as that at once. Other errors may mean anything:
// then the whole blob is asked for, without reading it, and the range once more.
func (r *repository) readRange(ctx context.Context, digest v1.Hash, size, offset, length int64) (io.ReadCloser, error) {
	if refused := r.refusal(); refused != nil {
		return nil, refused
	}
	if _, is := r.rangeless.find(digest); is && length < size {
		return nil, r.blobError(digest, ErrNoRanges, "it refused or ignored a range less than %v ago", rangelessFor)
	}
	body, err := r.askRange(ctx, digest, size, offset, length)
	var status *statusError
	if length == size || !errors.As(err, &status) {
		return body, err
	}
	switch status.status {
	case http.StatusServiceUnavailable:
		return nil, err
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusLengthRequired, http.StatusPreconditionFailed,
		http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusExpectationFailed, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return nil, r.noRanges(digest, err)
	case http.StatusRequestedRangeNotSatisfiable:
		if _, stated, ok := strings.Cut(status.contentRange, "bytes */"); ok {
			if total, err := strconv.ParseInt(stated, 10, 64); err == nil && total != size {
				return nil, r.blobError(digest, ErrSize, "declared are %d bytes, the registry has none at %d: it has %d", size, offset, total)
			} else if err == nil {
				return nil, r.noRanges(digest, status)
			}
		}
	}
	switch known, is := r.rangeless.find(digest); {
	case is: // meanwhile
		return nil, r.noRanges(digest, err)
	case known:
		return nil, err
	case status.signature && !r.rangeless.suspect(digest):
		return nil, err // it expires all the time
	}
	// One look is for all ranges that are refused meanwhile, so it does not end with the
	// first one's context.
	probe := r.probes.DoChan(digest.String(), func() (any, error) {
		return nil, r.probe(context.WithoutCancel(ctx), digest, size, offset, length, status)
	})
	select {
	case <-ctx.Done():
		return nil, wait.Err(ctx)
	case done := <-probe:
		switch done.Err {
		case errServed:
			return r.askRange(ctx, digest, size, offset, length)
		case nil:
			return nil, err
		}
		return nil, done.Err
	}
}

// errServed is the result of a probe: the range was served when it was asked for again.
var errServed = errors.New("the range is served")

// probe finds out whether a blob that refuses a range with a status is served in one
// piece. It returns an error of kind [ErrNoRanges] if so, one of kind [ErrSize] if it has
// another size, errServed, or nil: the refusal is not about ranges.
func (r *repository) probe(ctx context.Context, digest v1.Hash, size, offset, length int64, refused *statusError) error {
	resp, err := r.get(ctx, "blobs/"+digest.String(), http.Header{}, http.StatusOK)
	if err != nil {
		r.rangeless.remember(digest, false)
		return nil
	}
	total := resp.ContentLength // -1 if not stated
	resp.Body.Close()
	switch {
	case total >= 0 && total != size:
		return r.blobError(digest, ErrSize, "the manifest declares %d bytes, the registry has %d", size, total)
	case refused.status == http.StatusRequestedRangeNotSatisfiable:
		return r.noRanges(digest, refused)
	}
	r.reading.Add(1)
	body, err := r.askRange(ctx, digest, size, offset, length)
	if err == nil {
		body.Close()
		r.rangeless.remember(digest, false)
		return errServed
	}
	r.reading.Add(-1)
	var again *statusError
	switch {
	case errors.Is(err, ErrNoRanges):
		return err
	case errors.As(err, &again) && again.status != http.StatusServiceUnavailable:
		return r.noRanges(digest, again)
	}
	return nil
}

// noRanges remembers that a blob is served in one piece alone, and returns the error.
func (r *repository) noRanges(digest v1.Hash, refused error) error {
	r.rangeless.remember(digest, true)
	var answer *transport.Error
	if errors.As(refused, &answer) {
		return r.blobError(digest, ErrNoRanges, "to a range it answers %s", answerText(answer))
	}
	return r.blobError(digest, ErrNoRanges, "to a range it answers %w", refused)
}

// readOp is the [Error.Op] of what reads a blob.
func readOp(digest v1.Hash) string { return "read blob " + digest.String() + " of" }

func (r *repository) blobError(digest v1.Hash, kind error, format string, args ...any) error {
	return &Error{Op: readOp(digest), Source: r.name, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// askRange makes one request for a range: always a closed one, bytes=a-b, since some
// registries answer 416 to an open one; and none for the whole blob, since some refuse
// ranges.
func (r *repository) askRange(ctx context.Context, digest v1.Hash, size, offset, length int64) (io.ReadCloser, error) {
	last := offset + length - 1
	header := http.Header{}
	if length < size {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, last))
	}
	resp, err := r.get(ctx, "blobs/"+digest.String(), header, http.StatusPartialContent, http.StatusOK)
	var refused *refusedError
	switch {
	case err == nil:
		r.setStorage(resp.Request.URL.Host)
	case errors.As(err, &refused):
		r.setStorage(refused.host)
		return nil, err
	default:
		return nil, err
	}
	fail := func(err error) (io.ReadCloser, error) {
		resp.Body.Close()
		return nil, err
	}
	if resp.ProtoMajor > 1 {
		r.http2.Do(func() {
			r.log.WarnContext(ctx, "all ranges of blobs share one HTTP/2 connection, which limits their speed", "source", r.name, "from", resp.Request.URL.Host,
				"todo", "make Options.Transport speak HTTP/1.1: leave it out, or begin with registry.DefaultTransport")
		})
	}
	total := resp.ContentLength // of a 200; -1 if not stated
	if resp.StatusCode == http.StatusPartialContent {
		text := resp.Header.Get("Content-Range")
		first, end, all, ok := parseContentRange(text)
		switch {
		case !ok && length < size: // multipart/byteranges, for one
			r.rangeless.remember(digest, true)
			return fail(r.blobError(digest, ErrNoRanges, "asked for bytes %d-%d, the answer has the Content-Range %q", offset, last, text))
		case !ok || first != offset || end > last:
			return fail(r.blobError(digest, ErrInvalidAnswer, "asked for bytes %d-%d, the answer is for Content-Range %q", offset, last, text))
		}
		total = all
		r.rangeless.served(digest)
	} else if length < size {
		r.rangeless.rememberAll()
		if offset > 0 {
			return fail(r.blobError(digest, ErrNoRanges, "asked for bytes %d-%d, the answer is the whole blob", offset, last))
		}
	}
	if total >= 0 && total != size {
		return fail(r.blobError(digest, ErrSize, "the manifest declares %d bytes, the registry has %d", size, total))
	}
	return &blobBody{ctx: ctx, body: resp.Body, length: length, left: length, exact: resp.StatusCode == http.StatusPartialContent || length == size, source: r, digest: digest}, nil
}

// setStorage records which host served a blob, or refused to.
func (r *repository) setStorage(host string) {
	switch before := r.storage.Load(); {
	case host == r.origin.host:
		r.storage.Store(nil)
	case before == nil || *before != host:
		r.storage.Store(&host)
	}
}

const (
	// rangelessFor is how long it is remembered that a blob is served in one piece: the
	// fault may be that of a proxy, and pass.
	rangelessFor = 10 * time.Minute
	// noProbeFor is how long it is remembered that a refusal was not about ranges, so that
	// a registry which is down is not asked twice for each.
	noProbeFor = 10 * time.Second
	// suspectAfter is how long a storage must have refused all signatures before that may be
	// about ranges: each expires, and is renewed with the next request.
	suspectAfter = 2 * time.Second
	// severalBlobs is how many such blobs say it of all of a repository.
	severalBlobs = 3
	// mostProbes bounds what is remembered.
	mostProbes = 64
)

// rangeless are the blobs of a repository of which it is known that they are served in
// one piece alone, or that this is not why they were refused. It is safe for concurrent use.
type rangeless struct {
	mu    sync.Mutex
	all   time.Time // until then all blobs are
	blobs map[v1.Hash]finding
	// suspects are when a blob's storage began to refuse signatures, without serving a
	// range since.
	suspects map[v1.Hash]time.Time
}

type finding struct {
	rangeless bool
	until     time.Time
}

// find reports whether it is known of a blob what a refusal is about, and whether no range
// of it is worth a request: it, or several others, are served in one piece.
func (l *rangeless) find(digest v1.Hash) (known, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, several := time.Now(), 0
	for other, f := range l.blobs {
		switch {
		case now.After(f.until):
			delete(l.blobs, other)
		case f.rangeless:
			several++
		}
	}
	f, known := l.blobs[digest]
	return known, f.rangeless || several >= severalBlobs || now.Before(l.all)
}

// suspect reports whether a blob's storage has refused signatures for longer than one takes
// that has expired.
func (l *rangeless) suspect(digest v1.Hash) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, ok := l.suspects[digest]
	if !ok {
		if len(l.suspects) >= mostProbes || l.suspects == nil {
			l.suspects = map[v1.Hash]time.Time{}
		}
		l.suspects[digest] = time.Now()
	}
	return ok && time.Since(since) >= suspectAfter
}

// served records that a range of a blob was served.
func (l *rangeless) served(digest v1.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.suspects, digest)
}

// rememberAll is for an answer that is no refusal: the registry has no ranges.
func (l *rangeless) rememberAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = time.Now().Add(rangelessFor)
}

func (l *rangeless) remember(digest v1.Hash, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.blobs) >= mostProbes || l.blobs == nil {
		l.blobs = map[v1.Hash]finding{} // they are found out again
	}
	f := finding{is, time.Now().Add(noProbeFor)}
	if is {
		f.until = time.Now().Add(rangelessFor)
	}
	l.blobs[digest] = f
}

// contentRanges is the form of a Content-Range (RFC 9110, section 14.4).
var contentRanges = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`) })

// parseContentRange returns the first and last byte and the whole size, -1 if
// that is not stated.
func parseContentRange(s string) (first, last, total int64, ok bool) {
	m := contentRanges().FindStringSubmatch(s)
	if m == nil {
		return 0, 0, 0, false
	}
	first, _ = strconv.ParseInt(m[1], 10, 64) // at most 18 digits: cannot fail
	last, _ = strconv.ParseInt(m[2], 10, 64)
	total = -1
	if m[3] != "*" {
		total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	return first, last, total, first <= last && (total < 0 || last < total)
}

// blobBody is the body of a range: it ends after the bytes that were asked for
// and never before, and its errors say where the bytes came from.
type blobBody struct {
	ctx     context.Context
	body    io.ReadCloser
	length  int64
	left    int64
	exact   bool // the answer should end with the range
	source  *repository
	digest  v1.Hash
	settled bool // how it ended is recorded in the source's health
	closed  bool
}

func (b *blobBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.end()
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case err == io.EOF && b.left > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF:
		return n, nil // the next call says so, with no byte
	}
	if err != nil {
		stalled := errors.Is(err, errStalled)
		err = b.source.newError(b.ctx, readOp(b.digest), b.source.name, err)
		if b.ctx.Err() == nil && (stalled || b.length-b.left < enough) {
			b.settle(err)
		}
	}
	return n, err
}

// settle records in the source's health how the range ended, once.
func (b *blobBody) settle(err error) {
	if !b.settled {
		b.settled = true
		b.source.settle(b.ctx, err)
	}
}

// end reads the answer's end, which lets the connection be used again.
func (b *blobBody) end() error {
	if b.exact {
		if n, _ := b.body.Read(make([]byte, 1)); n > 0 {
			return b.source.blobError(b.digest, ErrSize, "the answer has more bytes than were asked for")
		}
	}
	b.settle(nil)
	return io.EOF
}

// Close never fails: what was not read is dropped with the connection, and says
// nothing about the bytes that were read.
func (b *blobBody) Close() error {
	_ = b.body.Close()
	if !b.closed {
		b.closed = true
		b.source.reading.Add(-1)
	}
	if b.left == 0 {
		b.settle(nil) // all that was asked for, though its end was not read
	}
	b.settle(errNeutral)
	return nil
}
