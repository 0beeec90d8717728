package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// readRange asks for a range of a blob whose whole size is declared. Always a
// closed range, bytes=a-b: some registries answer 416 to an open one. Who asks
// has counted it in r.reading; the body's Close takes that back.
func (r *repository) readRange(ctx context.Context, digest v1.Hash, size, offset, length int64) (io.ReadCloser, error) {
	if length < size && r.noRanges.Load() {
		return nil, &Error{Op: "read blob " + digest.String() + " of", Source: r.name, Kind: ErrRange}
	}
	last := offset + length - 1
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, last)}}
	resp, err := r.get(ctx, "blobs/"+digest.String(), header, http.StatusPartialContent, http.StatusOK, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, err
	}
	fail := func(kind error, format string, args ...any) (io.ReadCloser, error) {
		resp.Body.Close()
		return nil, &Error{Op: "read blob " + digest.String() + " of", Source: r.name, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	total := resp.ContentLength // of a 200; -1 if not stated
	switch resp.StatusCode {
	case http.StatusPartialContent:
		text := resp.Header.Get("Content-Range")
		first, end, all, ok := parseContentRange(text)
		if !ok || first != offset || end > last {
			return fail(ErrAnswer, "asked for bytes %d-%d, the answer is for Content-Range %.100q", offset, last, text)
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(ErrSize, "declared are %d bytes, the registry has none at %d", size, offset)
	case http.StatusOK:
		if length < size {
			r.noRanges.Store(true)
		}
		if offset > 0 {
			return fail(ErrRange, "asked for bytes %d-%d, the answer is the whole blob", offset, last)
		}
	}
	if total >= 0 && total != size {
		return fail(ErrSize, "the manifest declares %d bytes, the registry has %d", size, total)
	}
	return &blobBody{ctx: ctx, body: resp.Body, length: length, left: length, exact: resp.StatusCode == http.StatusPartialContent || length == size, source: r, digest: digest}, nil
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
	settled bool // the source's health knows how it ended
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
		err = newError(b.ctx, "read blob "+b.digest.String()+" of", b.source.name, err)
		if b.ctx.Err() == nil && (stalled || b.length-b.left < enough) {
			b.settle(err)
		}
	}
	return n, err
}

// settle tells the source's health how the range ended, once.
func (b *blobBody) settle(err error) {
	if !b.settled {
		b.settled = true
		b.source.settle(err)
	}
}

// end reads the answer's end, which lets the connection be used again.
func (b *blobBody) end() error {
	if b.exact {
		if n, _ := b.body.Read(make([]byte, 1)); n > 0 {
			return &Error{Op: "read blob " + b.digest.String() + " of", Source: b.source.name, Kind: ErrSize, Err: errors.New("the answer has more bytes than were asked for")}
		}
	}
	b.settle(nil)
	return io.EOF
}

// Close never fails: what was not read is thrown away with the connection, and
// says nothing about the bytes that were.
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
