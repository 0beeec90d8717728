package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// An object is one that was looked at.
type object struct {
	name     string
	etag     string
	size     int64
	modified time.Time
	*identity
	stored
}

// stored is how an object is stored, by the answer to HEAD.
type stored struct {
	encryption types.ServerSideEncryption
	key        *string // of KMS
	class      types.StorageClass
	tags       int32 // how many it has
}

// head looks at an object; nil if there is none.
func (b *Bucket) head(ctx context.Context, name string) (*object, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: b.key(name), RequestPayer: b.payer()})
	if err = b.wrap(ctx, "HeadObject", name, err); hasStatus(err, http.StatusNotFound) && !isNoBucket(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &object{
		name, aws.ToString(out.ETag), aws.ToInt64(out.ContentLength), aws.ToTime(out.LastModified), identityOf(out.Metadata),
		stored{out.ServerSideEncryption, out.SSEKMSKeyId, out.StorageClass, aws.ToInt32(out.TagCount)},
	}, nil
}

// get opens a range of an object, in the state etag if that is not empty. There are servers
// that do not keep If-Match of reads: what they answer with is looked at.
func (b *Bucket) get(ctx context.Context, key, etag string, from, to int64) (*s3.GetObjectOutput, error) {
	name := strings.TrimPrefix(key, b.prefix)
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key, Range: aws.String(rangeHeader(from, to)), RequestPayer: b.payer()}
	if etag != "" {
		in.IfMatch = &etag
	}
	out, err := b.client.GetObject(ctx, in)
	if err != nil {
		return nil, b.wrap(ctx, "GetObject", name, err)
	}
	if got := aws.ToString(out.ETag); etag != "" && got != "" && got != etag {
		_ = out.Body.Close()
		return nil, &Error{
			Op: "GetObject", Address: b.address(name), Action: actions["GetObject"], Code: "PreconditionFailed", Status: http.StatusPreconditionFailed,
			Err: errors.New("the server gave another object than If-Match asked for"),
		}
	}
	if r := aws.ToString(out.ContentRange); r == "" && from > 0 || r != "" && !strings.HasPrefix(r, fmt.Sprintf("bytes %d-", from)) {
		_ = out.Body.Close()
		return nil, &Error{Op: "GetObject", Address: b.address(name), Action: actions["GetObject"], Err: fmt.Errorf("the server gave the range %q and not what was asked for, from %d on", r, from)}
	}
	return out, nil
}

// address is what errors call an object.
func (b *Bucket) address(name string) string { return scheme + b.name + "/" + b.prefix + name }

// beginning is how many bytes of an object are read to know its layout: more than the metadata
// of images has that are not unusual. More is read where there is more.
const beginning = 64 << 10

// openAttempts is how often a tarball is opened that is replaced all the time.
const openAttempts = 5

// openReader looks at an object and reads its beginning, with one request. The reader is not
// nil if the error is.
func (b *Bucket) openReader(ctx context.Context, name string) (*object, *reader, error) {
	out, err := b.get(ctx, b.prefix+name, "", 0, beginning)
	if hasStatus(err, http.StatusRequestedRangeNotSatisfiable) {
		return nil, nil, b.errEmpty(name)
	}
	if err != nil {
		return nil, nil, err
	}
	defer out.Body.Close()
	o := &object{name, aws.ToString(out.ETag), sizeOf(out), aws.ToTime(out.LastModified), identityOf(out.Metadata), stored{}}
	if o.size == 0 {
		return nil, nil, b.errEmpty(name)
	}
	r := newReader(ctx, b, b.prefix+name, o.etag, o.size)
	first := make([]byte, min(beginning, o.size))
	stalled := time.AfterFunc(r.stall, func() { _ = out.Body.Close() })
	n, err := io.ReadFull(out.Body, first)
	stalled.Stop()
	if err != nil { // the connection broke: the rest comes by others
		defer context.AfterFunc(ctx, r.cancel)()
		if err = r.read(r.ctx, first[n:], int64(n)); ctx.Err() != nil {
			err = wait.Err(ctx)
		}
	}
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	r.first = first
	return o, r, nil
}

func (b *Bucket) errEmpty(name string) error {
	return fmt.Errorf("%s: %w: it is empty", b.address(name), tarball.ErrNotTarball)
}

// openTarball opens a tarball, once more if it is replaced while its beginning is read. The
// object is not nil if what it holds is known, or that it holds none. An error wraps
// [tarball.ErrNotTarball] only if what was read says so.
func (b *Bucket) openTarball(ctx context.Context, name string, strict bool) (t *tarball.Tarball, o *object, err error) {
	for range openAttempts {
		t, o, err = b.openOnce(ctx, name, strict)
		if !errors.Is(err, cache.ErrReplaced) {
			break
		}
	}
	return t, o, err
}

func (b *Bucket) openOnce(ctx context.Context, name string, strict bool) (*tarball.Tarball, *object, error) {
	o, r, err := b.openReader(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, r.cancel)
	r.strict = strict
	t, err := tarball.Read(r, o.size, b.address(name))
	if !stop() { // it is being closed
		_ = r.Close()
		return nil, nil, wait.Err(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.layout = t.Layout
		return t, o, nil
	}
	r.cancel()
	if r.failed != nil {
		return nil, nil, r.failed
	}
	return nil, o, err
}

// readInfo reads what an object holds.
func (b *Bucket) readInfo(ctx context.Context, name string) (*object, *tarball.Info, error) {
	t, o, err := b.openTarball(ctx, name, false)
	if err != nil {
		return o, nil, err
	}
	_ = t.Close()
	return o, &t.Info, nil
}
