package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dockercache/dockercache/cache"
)

// noETag is one that no object has.
const noETag = `"00000000000000000000000000000000"`

// checkConditions finds out whether the server keeps the conditions of CompleteMultipartUpload,
// once for a Bucket, with an object of which nothing is lost if it does not: one that exists, and
// that this process has written. There are servers that ignore If-Match, or both.
func (b *Bucket) checkConditions(ctx context.Context, name string) error {
	b.mu.Lock()
	known := b.conditional
	b.mu.Unlock()
	if known || b.options.Unconditional {
		return nil
	}
	begin := &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: b.key(name), RequestPayer: b.payer()}
	b.encrypt(&begin.ServerSideEncryption, &begin.SSEKMSKeyId) // a policy may require it of all
	created, err := b.client.CreateMultipartUpload(ctx, begin)
	if err != nil {
		return b.wrap(ctx, "CreateMultipartUpload", name, err)
	}
	defer func() {
		ending, cancel := lastly(ctx)
		defer cancel()
		_ = b.abort(ending, name, created.UploadId)
	}()
	sent, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.name, Key: b.key(name), UploadId: created.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("{}")), RequestPayer: b.payer(),
	})
	if err != nil {
		return b.wrap(ctx, "UploadPart", name, err)
	}
	for header, condition := range map[string]func(*s3.CompleteMultipartUploadInput){
		"If-None-Match": func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = aws.String("*") },
		"If-Match": func(in *s3.CompleteMultipartUploadInput) {
			in.IfMatch = aws.String(noETag)
		},
	} {
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &b.name, Key: b.key(name), UploadId: created.UploadId, RequestPayer: b.payer(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: sent.ETag, PartNumber: aws.Int32(1)}}},
		}
		condition(in)
		err := b.complete(ctx, name, in)
		switch {
		case err == nil:
			return fmt.Errorf("%s: %w: it completed an upload though %s did not hold; an older build run could replace a newer one's tarball: use another server, or allow it", b.Path(), ErrNoConditions, header)
		case hasStatus(err, http.StatusNotImplemented):
			return fmt.Errorf("%s: %w: it refuses %s; an older build run could replace a newer one's tarball: use another server, or allow it: %w", b.Path(), ErrNoConditions, header, err)
		case !isPrecondition(err) && !isConflict(err) && !isGone(err): // a conflict may end the upload
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conditional = true
	return nil
}

// copying is what is known of whether the server keeps the condition of a copy.
type copying int

const (
	copiesUnknown copying = iota
	copiesOne             // the object that was asked for, and no other
	copiesAny             // whatever is there by now
)

// errCopiesAny: what was planned to be copied must be fetched.
var errCopiesAny = errors.New("the server ignores the conditions of copies")

// checkCopies finds out whether the server copies from the object that was looked at alone, once for
// a Bucket, with a condition that does not hold. From one that copies from whatever is there by now
// nothing is copied: the copy would be of bytes that nobody has hashed.
func (u *upload) checkCopies(ctx context.Context) error {
	b := u.bucket
	i := slices.IndexFunc(u.plan.parts, func(p part) bool { return p.copied != nil })
	if i < 0 {
		return nil
	}
	b.mu.Lock()
	is := b.copies
	b.mu.Unlock()
	if is == copiesUnknown {
		s := u.plan.parts[i].copied
		_, err := b.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: &b.name, Key: b.key(u.put.name), UploadId: &u.id, PartNumber: aws.Int32(1), RequestPayer: b.payer(),
			CopySource: aws.String(copySource(b.name, s.Origin.Key)), CopySourceIfMatch: aws.String(noETag), CopySourceRange: aws.String(rangeHeader(s.At, s.At+1)),
		})
		switch err = b.wrap(ctx, "UploadPartCopy", strings.TrimPrefix(s.Origin.Key, b.prefix), err); {
		case err == nil:
			is = copiesAny
			b.log.WarnContext(ctx, "the server ignores the conditions of copies: no layer is copied from another tarball", "bucket", b.Path())
		case hasStatus(err, http.StatusPreconditionFailed):
			is = copiesOne
		default:
			return err
		}
		b.mu.Lock()
		b.copies = is
		b.mu.Unlock()
	}
	if is == copiesAny {
		return errCopiesAny
	}
	return nil
}

// relabel gives the object the run of this call, which is newer: the image is the same. The
// server copies it onto itself, since the object's metadata cannot be changed; a record beside it
// would not keep another writer from replacing it.
func (b *Bucket) relabel(ctx context.Context, p *put) error {
	was := p.current
	i := *was.identity
	i.run, i.token = p.Provenance.Run, newToken()
	if p.Group != "" {
		i.group = p.Group
	}
	if i.verified.IsZero() { // it was stored by another program, and was hashed by nobody
		p.result.Outcome = cache.Unchanged
		return nil
	}
	u := &upload{put: p, bucket: b, parts: map[int32]types.CompletedPart{}}
	size := was.size
	plan, err := makePlan(size, []span{{0, size, origin{b.prefix + p.name, was.etag}, 0}}, limits{1, usualPart, copyPart})
	if err != nil {
		return err
	}
	u.plan = plan
	if err = u.create(ctx, &i, was); err != nil {
		return fmt.Errorf("record the run of %s: %w", p.name, err)
	}
	u.sink = newSinkOf(plan.parts)
	ctx2, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err = u.copyParts(ctx2, cancel); err == nil {
		err = b.complete(ctx, p.name, &s3.CompleteMultipartUploadInput{
			Bucket: &b.name, Key: b.key(p.name), UploadId: &u.id, RequestPayer: b.payer(), IfMatch: &was.etag,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: u.completed()},
		})
	}
	if err != nil {
		u.abort(ctx)
		return fmt.Errorf("record the run of %s: %w", p.name, err)
	}
	p.result.Outcome, p.result.Total = cache.Unchanged, size
	return nil
}
