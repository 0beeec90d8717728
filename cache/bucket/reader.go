package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/backoff"
	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// blockSize is how much a request asks for that reads ahead, and readAhead how much is
	// read ahead, over all that read the same object in order.
	blockSize = 4 << 20
	readAhead = 32 << 20
	// readAttempts is how often a range is asked for again in a row without a byte.
	readAttempts = 6
	// stallAfter is for how long an answer may bring nothing before it is given up.
	stallAfter = 30 * time.Second
	// mostRecords is how many blocks are remembered that were announced.
	mostRecords = 256
	// mostBeginning is up to where a beginning is read at once: manifest, config and indexes
	// have no more, by the limits of package tarball.
	mostBeginning = 64 << 20
)

// A reader reads an object by ranges, in one state: when another object takes its place, it
// goes on with the layers that this one has too. It implements [sys.Prefetcher], and is safe for
// concurrent use.
type reader struct {
	ctx    context.Context // until it is closed
	cancel context.CancelFunc
	bucket *Bucket
	key    string
	size   int64
	strict bool // another object in its place is an error
	// block and ahead are blockSize and readAhead, stall is stallAfter, but for tests.
	block, ahead int64
	stall        time.Duration

	following sync.Mutex // is held while it is looked at what is there now
	growing   sync.Mutex // is held while more of the beginning is read

	mu     sync.Mutex
	etag   string
	layout *tarball.Layout // when it is known
	moved  *tarball.Layout // of the object that is read in its place
	first  []byte          // the beginning, if it was read
	failed error           // of the last read that failed
	blocks []*block        // in the order in which they were announced
}

// A block is a range that was announced.
type block struct {
	from, to int64
	passed   int      // how many blocks that were announced later were read since it was
	waiting  int      // how many wait for it
	fetch    *fetched // nil: it was not asked for, or was given up
}

// A fetched is a range that was asked for.
type fetched struct {
	cancel  context.CancelFunc
	done    chan struct{}
	content []byte // when done
	err     error  // likewise
}

// never is passed of a block that counts as one that nobody comes to.
const never = 1 << 30

// hasFailed reports whether the request has failed.
func (f *fetched) hasFailed() bool {
	select {
	case <-f.done:
		return f.err != nil
	default:
		return false
	}
}

func newReader(ctx context.Context, b *Bucket, key, etag string, size int64) *reader {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &reader{ctx: ctx, cancel: cancel, bucket: b, key: key, etag: etag, size: size, block: blockSize, ahead: readAhead, stall: stallAfter}
}

// Close implements [io.Closer]. It ends all requests.
func (r *reader) Close() error {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocks = nil
	return nil
}

// Ahead implements [sys.Prefetcher]. Twice as much is announced as is asked for at a time, so that
// there is something to ask for whenever a block was read.
func (r *reader) Ahead() int64 { return 2 * r.ahead }

// WillNeed implements [sys.Prefetcher].
func (r *reader) WillNeed(offset, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := min(offset+n, r.size)
	for offset = max(offset, int64(len(r.first))); offset < end; {
		b := &block{from: offset, to: min(offset+r.block, end)}
		offset = b.to
		r.blocks = append(r.blocks, b)
	}
	for len(r.blocks) > mostRecords { // of readers that have gone elsewhere
		i := slices.IndexFunc(r.blocks, func(b *block) bool { return b.waiting == 0 })
		if i < 0 {
			break
		}
		r.blocks[i].giveUp()
		r.blocks = slices.Delete(r.blocks, i, i+1)
	}
	r.schedule()
}

// schedule asks for what comes next, with the mutex held: so many blocks at a time as are read
// ahead. One that nobody has come to while twice as many later ones were read does not count.
func (r *reader) schedule() {
	if r.ctx.Err() != nil {
		return
	}
	atOnce := int(r.ahead / r.block)
	begun := 0
	isStale := func(b *block) bool { return b.waiting == 0 && b.passed > 2*atOnce }
	for _, b := range r.blocks {
		if isStale(b) {
			b.giveUp()
		}
		if b.fetch != nil {
			begun++
		}
	}
	for _, b := range r.blocks {
		if begun >= atOnce {
			return
		}
		if b.fetch == nil && !isStale(b) {
			r.begin(b)
			begun++
		}
	}
}

// begin asks for a block, with the mutex held.
func (r *reader) begin(b *block) {
	ctx, cancel := context.WithCancel(r.ctx)
	f := &fetched{cancel: cancel, done: make(chan struct{})}
	b.fetch = f
	go func() {
		defer close(f.done)
		defer cancel()
		content := make([]byte, b.to-b.from)
		if f.err = r.read(ctx, content, b.from); f.err == nil {
			f.content = content
		}
	}()
}

// giveUp ends the request for a block, or lets go what it brought. It can be asked for again.
func (b *block) giveUp() {
	if b.fetch != nil {
		b.fetch.cancel()
		b.fetch = nil
	}
}

// need returns what was fetched of a block that is read now, with the mutex held. It is begun
// before its turn if it has to be: then there may be twice as many, and others make room.
func (r *reader) need(b *block) *fetched {
	b.passed = 0
	if b.fetch != nil && b.fetch.hasFailed() { // when nobody waited for it
		b.giveUp()
	}
	if b.fetch != nil {
		return b.fetch
	}
	var oldest *block
	begun := 0
	for _, o := range r.blocks {
		if o.fetch == nil {
			continue
		}
		begun++
		if o.waiting == 0 && (oldest == nil || o.passed > oldest.passed) {
			oldest = o
		}
	}
	if begun >= 2*int(r.ahead/r.block) && oldest != nil {
		oldest.giveUp()
	}
	r.begin(b)
	return b.fetch
}

// ReadAt implements [io.ReaderAt].
func (r *reader) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) && err == nil {
		var got int
		got, err = r.readSome(p[n:], offset+int64(n))
		n += got
	}
	if err != nil && err != io.EOF {
		r.mu.Lock()
		r.failed = err
		r.mu.Unlock()
	}
	return n, err
}

func (r *reader) readSome(p []byte, offset int64) (int, error) {
	switch {
	case offset < 0:
		return 0, errors.New("negative offset")
	case offset >= r.size:
		return 0, io.EOF
	case r.ctx.Err() != nil:
		return 0, fs.ErrClosed
	}
	p = p[:min(int64(len(p)), r.size-offset)]
	r.mu.Lock()
	if offset < int64(len(r.first)) {
		defer r.mu.Unlock()
		return copy(p, r.first[offset:]), nil
	}
	i := slices.IndexFunc(r.blocks, func(b *block) bool { return b.from <= offset && offset < b.to })
	if i < 0 {
		isBeginning := r.layout == nil
		r.mu.Unlock()
		if end := offset + int64(len(p)); isBeginning && end <= mostBeginning {
			return 0, r.grow(end)
		}
		if err := r.read(r.ctx, p, offset); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	b := r.blocks[i]
	f := r.need(b)
	b.waiting++
	r.mu.Unlock()
	<-f.done
	r.mu.Lock()
	defer r.mu.Unlock()
	b.waiting--
	if f.err != nil {
		if b.fetch == f { // it is asked for again when it is read, and not ahead of that
			b.giveUp()
			b.passed = never
		}
		return 0, f.err
	}
	n := copy(p, f.content[offset-b.from:])
	if offset+int64(n) == b.to {
		if i := slices.Index(r.blocks, b); i >= 0 {
			for _, earlier := range r.blocks[:i] {
				earlier.passed++
			}
			r.blocks = slices.Delete(r.blocks, i, i+1)
		}
		r.schedule()
	}
	return n, nil
}

// grow reads the beginning up to an offset at least, and twice as much as before: what is read
// of it are headers of 512 bytes.
func (r *reader) grow(to int64) error {
	r.growing.Lock()
	defer r.growing.Unlock()
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	n := int64(len(first))
	if to <= n { // another has read it
		return nil
	}
	more := make([]byte, min(max(to, 2*n), r.size)-n)
	if err := r.read(r.ctx, more, n); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = append(first[:n:n], more...)
	return nil
}

// read reads all of p, by as many requests as it takes.
func (r *reader) read(ctx context.Context, p []byte, offset int64) error {
	failed := 0
	for len(p) > 0 {
		n, etag, err := r.request(ctx, p, offset)
		p, offset = p[n:], offset+int64(n)
		if n > 0 {
			failed = 0
		}
		if err == nil {
			continue
		}
		if failed++; n > 0 { // the connection broke: go on at once
			failed = 0
		}
		switch {
		case ctx.Err() != nil:
			return fs.ErrClosed
		case failed == readAttempts:
			return err
		case isOther(err):
			if err := r.follow(ctx, etag); err != nil {
				return err
			}
		case isAnswer(err): // the SDK has tried it often enough
			return err
		case failed > 0:
			if err := wait.Sleep(ctx, backoff.Delay(200*time.Millisecond, 5*time.Second, failed)); err != nil {
				return fs.ErrClosed
			}
		}
	}
	return nil
}

// isOther reports whether an answer says that another object is there, or none.
func isOther(err error) bool {
	return !isNoBucket(err) && (isPrecondition(err) || hasStatus(err, http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable))
}

// isAnswer reports whether an error is an answer of the server, or that something is not to be
// tried again.
func isAnswer(err error) bool {
	var e *Error
	return errors.As(err, &e) || errors.Is(err, cache.ErrReplaced)
}

// request makes one request, and returns how much of p came, and of which object.
func (r *reader) request(ctx context.Context, p []byte, offset int64) (got int, etag string, err error) {
	r.mu.Lock()
	etag, at := r.etag, offset
	if r.moved != nil {
		var n int64
		var ok bool
		if at, n, ok = translate(r.layout, r.moved, offset); !ok {
			r.mu.Unlock()
			return 0, etag, tarball.Permanent(fmt.Errorf("%s: %w: what is there now does not have the layer", r.address(), cache.ErrReplaced))
		}
		p = p[:min(int64(len(p)), n)]
	}
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := r.bucket.get(ctx, r.key, etag, at, at+int64(len(p)))
	if err != nil {
		return 0, etag, err
	}
	defer out.Body.Close()
	stalled := time.AfterFunc(r.stall, cancel)
	defer stalled.Stop()
	for got < len(p) && err == nil {
		var n int
		n, err = out.Body.Read(p[got:])
		got += n
		stalled.Reset(r.stall)
	}
	if got == len(p) {
		return got, etag, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return got, etag, fmt.Errorf("read %s at %d: %w", r.address(), at+int64(got), err)
}

func (r *reader) address() string { return scheme + r.bucket.name + "/" + r.key }

// translate returns where a byte of a layer is in another layout, and how many follow it there.
func translate(from, to *tarball.Layout, offset int64) (at, n int64, ok bool) {
	for _, s := range from.Layers() {
		if s.Offset <= offset && offset < s.Offset+s.Length {
			there, ok := to.Layer(s.Blob)
			return there.Offset + offset - s.Offset, s.Offset + s.Length - offset, ok && there.Length == s.Length
		}
	}
	return 0, 0, false
}

// follow looks at the object that is there now, in place of that with an ETag.
func (r *reader) follow(ctx context.Context, etag string) error {
	r.following.Lock()
	defer r.following.Unlock()
	r.mu.Lock()
	layout, isOld := r.layout, r.etag != etag
	r.mu.Unlock()
	if isOld { // another request has followed already
		return nil
	}
	if layout == nil || r.strict {
		return tarball.Permanent(fmt.Errorf("%s: %w", r.address(), cache.ErrReplaced))
	}
	o, info, err := r.bucket.readInfo(ctx, strings.TrimPrefix(r.key, r.bucket.prefix))
	switch {
	case ctx.Err() != nil:
		return fs.ErrClosed
	case errors.Is(err, fs.ErrNotExist):
		return tarball.Permanent(fmt.Errorf("%s: %w: it was removed: %w", r.address(), cache.ErrReplaced, err))
	case errors.Is(err, tarball.ErrNotTarball):
		return tarball.Permanent(fmt.Errorf("%s: %w: what is there now is none: %w", r.address(), cache.ErrReplaced, err))
	case err != nil:
		return fmt.Errorf("%s: it was replaced, and what is there now cannot be read: %w", r.address(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.etag, r.moved = o.etag, info.Layout
	return nil
}

// sizeOf is the size of the object of which a range was asked for.
func sizeOf(out *s3.GetObjectOutput) int64 {
	_, total, ok := strings.Cut(aws.ToString(out.ContentRange), "/")
	if size, err := strconv.ParseInt(total, 10, 64); ok && err == nil {
		return size
	}
	return aws.ToInt64(out.ContentLength)
}
