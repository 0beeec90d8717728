package buckettest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// requestBody reads the body of a request as it comes from the connection, with the
// quirks of that.
type requestBody struct {
	call *call
	from io.Reader
	pace pacer
	cut  int64 // closes the connection after so many bytes, if not negative
	read int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.cut >= 0 {
		if b.read == b.cut {
			panic(http.ErrAbortHandler)
		}
		p = p[:min(int64(len(p)), b.cut-b.read)]
	}
	rate := b.call.rate(b.call.quirks.PutBytesPerSecond)
	p = p[:min(len(p), step(rate))]
	n, err := b.from.Read(p)
	b.read += int64(n)
	if !b.pace.wait(b.call.context(), b.call.closed, n, rate) {
		return n, orEnded(err)
	}
	return n, err
}

// orEnded is the error of a body that ended because the server or the client did.
func orEnded(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// countedBody counts what is left of a body when it has been decoded.
type countedBody struct {
	call *call
	from io.Reader
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	c := b.call
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record.Uploaded += int64(n)
	if c.op == PutObject || c.op == UploadPart {
		c.sent += int64(n)
	}
	return n, err
}

// errFraming is of a body that is not in the form of its Content-Encoding.
var errFraming = errors.New("malformed aws-chunked body")

// chunkedBody decodes the content encoding aws-chunked: chunks with their size in hex
// and maybe a signature, then trailers.
// See https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html.
type chunkedBody struct {
	from    *bufio.Reader
	left    int64 // of the present chunk
	begun   bool
	ended   bool
	trailer http.Header
}

func (b *chunkedBody) Read(p []byte) (int, error) {
	if b.left == 0 && !b.ended {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: ends in a chunk", errFraming)
	}
	return n, err
}

// next reads up to the content of the next chunk, or to the end.
func (b *chunkedBody) next() error {
	if b.begun {
		if line, err := b.line(); err != nil || line != "" {
			return orMalformed(err, "no end of a chunk")
		}
	}
	b.begun = true
	line, err := b.line()
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	b.left, err = strconv.ParseInt(size, 16, 64)
	if err != nil || b.left < 0 {
		return fmt.Errorf("%w: size %q", errFraming, size)
	}
	for b.left == 0 {
		line, err := b.line()
		// The last empty line may be absent after trailers.
		if line == "" && (err == nil || len(b.trailer) > 0) {
			b.ended = true
			return nil
		}
		if err != nil {
			return err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("%w: trailer %q", errFraming, line)
		}
		b.trailer.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return nil
}

func orMalformed(err error, otherwise string) error {
	if err == nil {
		return fmt.Errorf("%w: %s", errFraming, otherwise)
	}
	return err
}

func (b *chunkedBody) line() (string, error) {
	line, err := b.from.ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: ends in a line", errFraming)
	}
	return strings.TrimRight(line, "\r\n"), err
}

// content reads the whole body of a request and verifies it. It does not return if the
// client goes.
func (c *call) content() (content []byte, stated checksum, refused *answer) {
	h := c.request.Header
	trailer := http.Header{}
	var from io.Reader = c.body
	size := c.request.ContentLength
	if c.isChunked() {
		chunked := &chunkedBody{from: bufio.NewReader(from), trailer: trailer}
		from = chunked
		var err error
		size, err = strconv.ParseInt(h.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil {
			return nil, stated, missingLength()
		}
	} else if size < 0 {
		return nil, stated, missingLength()
	}
	buffer := bytes.NewBuffer(make([]byte, 0, min(size, 64<<20)+bytes.MinRead))
	_, err := buffer.ReadFrom(countedBody{c, from})
	switch content = buffer.Bytes(); {
	case errors.Is(err, errFraming), err == nil && int64(len(content)) != size:
		return nil, stated, refuse(http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	case err != nil:
		panic(http.ErrAbortHandler)
	}
	stated, refused = c.verify(content, trailer)
	return content, stated, refused
}

func missingLength() *answer {
	return refuse(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
}

func (c *call) isChunked() bool {
	return strings.HasPrefix(c.request.Header.Get("X-Amz-Content-Sha256"), "STREAMING-")
}

// discard reads the rest of a body, so that the client gets the answer and no broken
// connection. The SDK writes a body at once even if it says Expect: 100-continue: its
// requests have no HTTP version, and for such net/http does not wait.
func (c *call) discard() { _, _ = io.Copy(io.Discard, countedBody{c, c.body}) }

// cutBody has the connection closed while the body is read, if a quirk says so.
func (c *call) cutBody() {
	for op, cut := range map[Op]struct {
		name  string
		times int
	}{UploadPart: {"CutPart", c.quirks.CutPart}, PutObject: {"CutPut", c.quirks.CutPut}} {
		if op == c.op && c.limited(cut.name, map[Op]int{op: cut.times}) {
			c.body.cut = c.request.ContentLength / 2
			if c.quirks.CutAfter > 0 && c.quirks.CutAfter < c.request.ContentLength {
				c.body.cut = c.quirks.CutAfter
			}
		}
	}
}

// sendContent writes the content of an object, with the quirks of that.
func (c *call) sendContent(w http.ResponseWriter, content []byte) {
	cut := c.quirks.CutGet > 0 && int64(len(content)) > c.quirks.CutGet && c.only() && c.first("CutGet", c.quirks.CutGetCount)
	if cut {
		content = content[:c.quirks.CutGet]
	}
	var pace pacer
	for len(content) > 0 {
		rate := c.rate(c.quirks.GetBytesPerSecond)
		part := content[:min(len(content), step(rate))]
		if !pace.wait(c.context(), c.closed, len(part), rate) {
			return
		}
		c.mu.Lock()
		c.record.Downloaded += int64(len(part)) // before the client can know
		c.mu.Unlock()
		if _, err := w.Write(part); err != nil {
			return
		}
		if rate > 0 {
			_ = http.NewResponseController(w).Flush()
		}
		content = content[len(part):]
	}
	if cut {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// rate returns the present limit of a body; 0 is none.
func (c *call) rate(limit int64) int64 {
	if c.quirks.Rate != nil {
		return c.quirks.Rate(c.snapshot())
	}
	return limit
}

// step returns how many bytes are moved at a time: so many that a limit is a steady
// stream, of 8 ms if that is more than a byte.
func step(rate int64) int {
	const most = 256 << 10
	if rate <= 0 {
		return most
	}
	return int(min(max(rate/128, 1), most))
}

// A pacer spreads bytes over the time that they need at a rate.
type pacer struct {
	due time.Time // when those so far have arrived
}

// wait returns when n more bytes have arrived, or false if the request or the server ends
// before.
func (p *pacer) wait(ctx context.Context, closed <-chan struct{}, n int, rate int64) bool {
	if rate <= 0 {
		p.due = time.Time{}
		return true
	}
	if now := time.Now(); p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	timer := time.NewTimer(time.Until(p.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-closed:
	}
	return false
}
