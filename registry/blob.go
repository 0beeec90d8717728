package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// readRange asks for a range of a blob whose whole size is declared. Always a
// closed range, bytes=a-b: some registries answer 416 to an open one.
func (r *repository) readRange(ctx context.Context, digest v1.Hash, size, offset, length int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	last := offset + length - 1
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, last)}}
	resp, err := r.get(ctx, "blobs/"+digest.String(), header, http.StatusPartialContent, http.StatusOK, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	fail := func(kind error, format string, args ...any) (io.ReadCloser, error) {
		cancel(nil)
		resp.Body.Close()
		return nil, &Error{Op: "read blob " + digest.String() + " of", Source: r.name, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	total := resp.ContentLength // of a 200; -1 if not stated
	body := io.Reader(resp.Body)
	switch resp.StatusCode {
	case http.StatusPartialContent:
		text := resp.Header.Get("Content-Range")
		first, end, all, ok := parseContentRange(text)
		if !ok || first != offset || end > last {
			return fail(ErrAnswer, "asked for bytes %d-%d, the answer is for Content-Range %.100q", offset, last, text)
		}
		if end < last && all < 0 {
			return fail(ErrAnswer, "asked for bytes %d-%d, the answer ends at %d", offset, last, end)
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(ErrSize, "declared are %d bytes, the registry has none at %d", size, offset)
	case http.StatusOK:
		if offset > 0 {
			return fail(ErrAnswer, "the registry ignores ranges")
		}
		if length < size {
			body = io.LimitReader(body, length)
		}
	}
	if total >= 0 && total != size {
		return fail(ErrSize, "the manifest declares %d bytes, the registry has %d", size, total)
	}
	b := &blobBody{ctx: ctx, cancel: cancel, body: resp.Body, limited: body, source: r.name, digest: digest, timeout: r.client.options.StallTimeout}
	b.stall = time.AfterFunc(b.timeout, func() { cancel(errStalled) })
	b.stall.Stop()
	return b, nil
}

// contentRanges is the form of a Content-Range (RFC 9110, section 14.4).
var contentRanges = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// parseContentRange returns the first and last byte and the whole size, -1 if
// that is not stated.
func parseContentRange(s string) (first, last, total int64, ok bool) {
	m := contentRanges.FindStringSubmatch(s)
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

var errStalled = errors.New("no byte came for too long")

// blobBody is the body of a blob: it notices a stall, and its errors say where
// the bytes came from.
type blobBody struct {
	ctx     context.Context // of this request
	cancel  context.CancelCauseFunc
	body    io.Closer
	limited io.Reader
	stall   *time.Timer
	timeout time.Duration
	source  string
	digest  v1.Hash
}

func (b *blobBody) Read(p []byte) (int, error) {
	// Only the wait for the registry counts, not what the caller does between
	// two reads.
	b.stall.Reset(b.timeout)
	n, err := b.limited.Read(p)
	b.stall.Stop()
	if err == nil || err == io.EOF {
		return n, err
	}
	if context.Cause(b.ctx) == errStalled {
		return n, &Error{Op: "read blob " + b.digest.String() + " of", Source: b.source, Kind: ErrUnreachable, Err: fmt.Errorf("%w (%v)", errStalled, b.timeout)}
	}
	return n, newError(b.ctx, "read blob "+b.digest.String()+" of", b.source, err)
}

func (b *blobBody) Close() error {
	b.cancel(nil)
	// What was not read is thrown away with the connection: an error here says
	// nothing about the bytes that were.
	_ = b.body.Close()
	return nil
}
