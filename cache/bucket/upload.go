package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// senders is how many parts are sent at a time.
	senders = 8
	// copiers is how many parts the server is asked to copy at a time.
	copiers = 8
	// lastlyAfter is how long a request may take, with its repetitions, that is made when all
	// is over. What it does not do the next attempt or a sweep does.
	lastlyAfter = 10 * time.Second
)

// An upload is a multipart upload of one tarball.
type upload struct {
	put     *put
	bucket  *Bucket
	layout  *tarball.Layout
	plan    plan
	pending *pending // what a later attempt goes on with
	id      string
	sink    *sink
	senders chan struct{}

	running context.Context // of the transfer

	writing sync.Mutex // is held while the record is written
	mu      sync.Mutex
	parts   map[int32]types.CompletedPart
	latest  *latest // how far it is
	saved   int64   // how far it is by the record
	saving  bool    // the record is being written
}

// write stores the tarball, and reports whether it is done: stored, or found to be there. It
// returns an error that wraps errAgain when it is to be tried again.
func (p *put) write(ctx context.Context, img *tarball.Image, layout *tarball.Layout, src tarball.Source, leading *leader) (done bool, err error) {
	b := p.bucket
	p.result.Downloaded, p.result.Reused, p.result.Copied, p.result.Resumed, p.result.Sources = 0, 0, 0, 0, nil
	u, err := p.adopt(ctx, layout)
	if err != nil {
		return false, fmt.Errorf("stock %s: %w", p.name, err)
	}
	if u == nil {
		if done, err := p.isDone(ctx); done || err != nil { // one that was waited for has done it
			return done, err
		}
		if u, err = p.begin(ctx, layout); err != nil {
			return false, fmt.Errorf("stock %s: %w", p.name, err)
		}
	}
	if err = b.checkConditions(ctx, pendingName(p.name, p.digest)); err == nil {
		err = u.checkCopies(ctx)
	}
	if err == nil {
		err = u.transfer(ctx, src, leading)
	}
	if err == nil && ctx.Err() != nil {
		err = wait.Err(ctx) // the caller gave up: do not publish
	}
	if err == nil {
		timing.Begin(p.Observer, timing.Publish)
		if done, err = u.publish(ctx); done {
			return true, err
		}
	}
	switch {
	case isGone(err): // another process has completed or aborted it
		err = fmt.Errorf("%w: %w", errAgain, err)
	case isPrecondition(err), errors.Is(err, cache.ErrReplaced): // an object that was copied from is another one now
		u.abort(ctx)
		err = fmt.Errorf("%w: %w", errAgain, err)
	case errors.Is(err, errAgain), errors.Is(err, errCannotRestart), errors.Is(err, errCopiesAny):
		u.abort(ctx)
		err = fmt.Errorf("%w: %w", errAgain, err)
	case errors.Is(err, tarball.ErrDigest) || errors.Is(err, tarball.ErrSize) || errors.Is(err, ErrNoConditions) || errors.Is(err, cache.ErrOtherImage):
		u.abort(ctx)
	default:
		ending, cancel := lastly(ctx)
		defer cancel()
		_ = u.save(ending, false) // for the next attempt
	}
	b.log.InfoContext(ctx, "an upload has failed", "tarball", p.path, "error", err)
	return false, fmt.Errorf("stock %s: %w", p.name, err)
}

// begin begins an upload.
func (p *put) begin(ctx context.Context, layout *tarball.Layout) (*upload, error) {
	b := p.bucket
	verified := b.now()
	var spans []span
	b.mu.Lock()
	copies := b.copies != copiesAny
	b.mu.Unlock()
	if copies && b.options.TrustFor > 0 && !p.Verify && !p.Rewrite {
		holders, since := b.holders(ctx, p.name, layout)
		var reused map[v1.Hash]bool
		if spans, reused = spansOf(layout, holders); len(reused) > 0 && since.Before(verified) {
			verified = since
		}
	}
	limits := defaultLimits(layout.Size())
	if b.limits != nil {
		limits = *b.limits
	}
	d := &pending{
		Checksum: b.options.Checksum,
		Version:  pendingVersion, Plan: planID(layout, p), Token: newToken(), Verified: verified,
		Least: limits.least, Usual: limits.usual, CopyPart: limits.copied, Spans: spans, Owner: newOwner(),
	}
	u, err := p.newUpload(layout, d)
	if err != nil {
		return nil, err
	}
	if err := u.create(ctx, p.identity(d.Token, verified), nil); err != nil {
		return nil, err
	}
	if err := u.save(ctx, true); err != nil {
		u.abort(ctx)
		return nil, err
	}
	return u, nil
}

func (p *put) newUpload(layout *tarball.Layout, d *pending) (*upload, error) {
	b := p.bucket
	u := &upload{put: p, bucket: b, layout: layout, pending: d, id: d.Upload, parts: map[int32]types.CompletedPart{}, senders: make(chan struct{}, senders)}
	var err error
	if u.plan, err = makePlan(layout.Size(), d.Spans, limits{d.Least, d.Usual, d.CopyPart}); err != nil {
		return nil, err
	}
	// Memory: the window and a part at each of its ends, and what waits to be sent.
	longest := d.Usual + d.Least
	memory := b.options.Memory / int64(b.options.Uploads)
	count := max(memory/longest, 5)
	u.sink = newSink(layout, u.plan.parts, (count-2)*longest/2, int((count-2)/2))
	u.sink.send = u.send
	u.sink.advanced = u.advanced
	for _, l := range u.sink.layers {
		l.here = slices.ContainsFunc(d.Spans, func(s span) bool { return s.From <= l.Offset && l.Offset+l.Length <= s.To })
	}
	return u, nil
}

// create begins the multipart upload. What the options leave open is as with the object that it
// is a copy of, if it is one.
func (u *upload) create(ctx context.Context, i *identity, of *object) error {
	p, b := u.put, u.bucket
	in := &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: b.key(p.name), Metadata: i.metadata(),
		ChecksumAlgorithm: types.ChecksumAlgorithm(b.options.Checksum), ChecksumType: types.ChecksumTypeFullObject, ContentType: aws.String("application/x-tar"),
		RequestPayer: b.payer(), StorageClass: types.StorageClass(b.options.StorageClass),
	}
	b.encrypt(&in.ServerSideEncryption, &in.SSEKMSKeyId)
	if len(b.options.Tags) > 0 {
		tags := url.Values{}
		for k, v := range b.options.Tags {
			tags.Set(k, v)
		}
		in.Tagging = aws.String(tags.Encode())
	}
	if of != nil {
		if err := b.keep(ctx, in, of); err != nil {
			return err
		}
	}
	out, err := b.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return b.wrap(ctx, "CreateMultipartUpload", p.name, err)
	}
	u.id = aws.ToString(out.UploadId)
	if u.pending != nil {
		u.pending.Upload = u.id
	}
	return nil
}

// keep fills in what the options leave open by what an object has. Its encryption is kept if it is
// with a key of KMS: the other one is what a bucket does by itself.
func (b *Bucket) keep(ctx context.Context, in *s3.CreateMultipartUploadInput, of *object) error {
	if in.ServerSideEncryption == "" && of.encryption != types.ServerSideEncryptionAes256 {
		in.ServerSideEncryption, in.SSEKMSKeyId = of.encryption, of.key
	}
	if in.StorageClass == "" {
		in.StorageClass = of.class
	}
	if in.Tagging != nil || of.tags == 0 {
		return nil
	}
	out, err := b.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &b.name, Key: in.Key, RequestPayer: b.payer()})
	if err != nil {
		return b.wrap(ctx, "GetObjectTagging", of.name, err)
	}
	tags := url.Values{}
	for _, t := range out.TagSet {
		tags.Set(aws.ToString(t.Key), aws.ToString(t.Value))
	}
	in.Tagging = aws.String(tags.Encode())
	return nil
}

func (b *Bucket) encrypt(algorithm *types.ServerSideEncryption, key **string) {
	*algorithm = types.ServerSideEncryption(b.options.Encryption)
	if b.options.KMSKey != "" {
		*key = &b.options.KMSKey
	}
}

// transfer brings all parts to the server.
func (u *upload) transfer(ctx context.Context, src tarball.Source, leading *leader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	u.running, u.sink.failed = ctx, cancel
	stop := u.sink.watch(ctx)
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return u.copyParts(ctx, cancel) })
	group.Go(func() error { return u.readHeads(ctx, cancel) })
	err := u.fetch(ctx, src, leading)
	if err == nil {
		err = u.sendLiterals()
	}
	if err != nil {
		cancel(err)
	}
	timing.Begin(u.put.Observer, timing.Copy)
	// Of several errors the first one ends the others, by ctx.
	if others := group.Wait(); err == nil {
		err = others
	}
	timing.Begin(u.put.Observer, timing.Send)
	if err := u.sink.end(err); err != nil {
		return err
	}
	if u.sink.prefix < len(u.plan.parts) {
		return fmt.Errorf("part %d of %d was not stored", u.sink.prefix+1, len(u.plan.parts))
	}
	return nil
}

// sendLiterals sends the parts that have no bytes of layers.
func (u *upload) sendLiterals() error {
	s := u.sink
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.parts {
		if p.copied == nil && !s.isSent[i] {
			s.at(i)
			s.sendComplete(i)
		}
	}
	return s.err
}

// fetch brings the layers that no other object has.
func (u *upload) fetch(ctx context.Context, src tarball.Source, leading *leader) error {
	p := u.put
	job := fetch.Job{
		Observer: p.Observer, Sink: u.sink, Layout: u.layout, Source: src, Layers: []tarball.Segment{}, Hashed: map[v1.Hash]fetch.HashState{},
		Events: events{sink: u.sink, damaged: func(layer v1.Hash) {
			u.bucket.log.WarnContext(ctx, "what an earlier attempt has stored of a layer is damaged, it is fetched again", "tarball", p.path, "layer", layer.String())
		}},
	}
	for _, l := range u.sink.layers {
		job.Before.Total += l.Length
		switch {
		case l.here:
			job.Before.Done += l.Length
			p.result.Copied += l.Length
			if l.Length == 0 {
				continue
			}
		case l.verified:
			job.Before.Done += l.Length
			p.result.Resumed += l.Length
		default:
			job.Layers = append(job.Layers, l.Segment)
			job.Before.Total -= l.Length
			if l.hashed > 0 {
				job.Hashed[l.Blob] = fetch.HashState{N: l.hashed, State: u.pending.State}
				p.result.Resumed += l.hashed
			}
		}
	}
	p.result.Reused = p.result.Copied
	job.Before.Reused = job.Before.Done
	end := u.watchRate(ctx, p.MinRate, leading, src)
	defer end()
	var last int64
	job.Progress = func(t tarball.Progress) {
		leading.moved.Add(t.Downloaded - last)
		last = t.Downloaded
		if p.Progress != nil {
			p.Progress(t)
		}
	}
	got, err := u.bucket.fetcher.Fetch(ctx, job)
	p.result.Downloaded += got.Downloaded
	p.result.Sources = append(p.result.Sources, got.Sources...)
	return err
}

// send sends a part, with a checksum that the server verifies.
func (u *upload) send(number int32, _ int64, content []byte) error {
	ctx := u.running
	select {
	case u.senders <- struct{}{}:
		defer func() { <-u.senders }()
	case <-ctx.Done():
		return wait.Err(ctx)
	}
	b := u.bucket
	out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.name, Key: b.key(u.put.name), UploadId: &u.id, PartNumber: &number, Body: bytes.NewReader(content),
		ContentLength: aws.Int64(int64(len(content))), ChecksumAlgorithm: types.ChecksumAlgorithm(b.options.Checksum), RequestPayer: b.payer(),
	}, unsigned)
	if err != nil {
		return b.wrap(ctx, "UploadPart", u.put.name, err)
	}
	u.add(types.CompletedPart{
		PartNumber: &number, ETag: out.ETag,
		ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC32C: out.ChecksumCRC32C, ChecksumCRC64NVME: out.ChecksumCRC64NVME,
	})
	return nil
}

// unsigned leaves the content out of a request's signature, which is signed with its checksum: its
// sha256 would cost each side as much as that of the layer.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

func (u *upload) add(part types.CompletedPart) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts[*part.PartNumber] = part
}

// copyParts has the server copy what other objects have.
func (u *upload) copyParts(ctx context.Context, cancel context.CancelCauseFunc) error {
	b := u.bucket
	var group errgroup.Group
	group.SetLimit(copiers)
	for i, part := range u.plan.parts {
		c := part.copied
		if c == nil || u.sink.isSent[i] {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return wait.Err(ctx)
			}
			out, err := b.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
				Bucket: &b.name, Key: b.key(u.put.name), UploadId: &u.id, PartNumber: &part.number, RequestPayer: b.payer(),
				CopySource: aws.String(copySource(b.name, c.Origin.Key)), CopySourceIfMatch: &c.Origin.ETag,
				CopySourceRange: aws.String(rangeHeader(c.At, c.At+c.To-c.From)),
			})
			if err != nil {
				err = b.wrap(ctx, "UploadPartCopy", strings.TrimPrefix(c.Origin.Key, b.prefix), err)
				cancel(err)
				return err
			}
			r := out.CopyPartResult
			u.add(types.CompletedPart{
				PartNumber: &part.number, ETag: r.ETag,
				ChecksumCRC32: r.ChecksumCRC32, ChecksumCRC32C: r.ChecksumCRC32C, ChecksumCRC64NVME: r.ChecksumCRC64NVME,
			})
			u.sink.copied(i)
			return nil
		})
	}
	return group.Wait()
}

// copySource is the header x-amz-copy-source.
func copySource(bucket, key string) string {
	var parts []string
	for p := range strings.SplitSeq(key, "/") {
		parts = append(parts, strings.ReplaceAll(url.QueryEscape(p), "+", "%20"))
	}
	return bucket + "/" + strings.Join(parts, "/")
}

// rangeHeader is the header for the bytes from, to-1.
func rangeHeader(from, to int64) string { return fmt.Sprintf("bytes=%d-%d", from, to-1) }

// readHeads reads what is too short to be copied from where it is.
func (u *upload) readHeads(ctx context.Context, cancel context.CancelCauseFunc) error {
	err := func() error {
		for _, h := range u.plan.heads {
			if h.to <= u.pending.Offset {
				continue // is stored
			}
			for from := h.from; from < h.to; {
				n := min(h.to-from, 1<<20)
				if err := u.readHead(ctx, h, from, n); err != nil {
					return err
				}
				from += n
			}
		}
		return nil
	}()
	if err != nil {
		cancel(err)
	}
	return err
}

func (u *upload) readHead(ctx context.Context, h head, from, n int64) error {
	at := h.at + from - h.from
	r := newReader(ctx, u.bucket, h.origin.Key, h.origin.ETag, at+n)
	defer r.Close()
	r.strict = true
	p := make([]byte, n)
	if err := r.read(ctx, p, at); err != nil {
		if ctx.Err() != nil {
			return wait.Err(ctx)
		}
		return err
	}
	return u.sink.fillSpan(p, from)
}

// publish completes the upload, if what has the name is still what was looked at.
func (u *upload) publish(ctx context.Context) (done bool, err error) {
	p, b := u.put, u.bucket
	for range 20 {
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &b.name, Key: b.key(p.name), UploadId: &u.id, RequestPayer: b.payer(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: u.completed()},
		}
		if p.current == nil {
			in.IfNoneMatch = aws.String("*")
		} else {
			in.IfMatch = &p.current.etag
		}
		err := b.complete(ctx, p.name, in)
		if err == nil {
			p.result.Outcome = cache.Stocked
			b.forget(ctx, p.name, p.digest)
			return true, nil
		}
		if ctx.Err() != nil || !isPrecondition(err) && !isConflict(err) && !isGone(err) {
			return false, err
		}
		// An answer may have been lost: then what is there is this upload.
		is, headErr := b.head(ctx, p.name)
		if headErr != nil {
			return false, headErr
		}
		if is != nil && is.identity != nil && is.token == u.pending.Token {
			p.result.Outcome = cache.Stocked
			b.forget(ctx, p.name, p.digest)
			return true, nil
		}
		if done, doneErr := p.isDone(ctx); done || doneErr != nil {
			u.abort(ctx)
			return true, doneErr
		}
		if p.relabel { // the same image, of an older run
			u.abort(ctx)
			return true, b.relabel(ctx, p)
		}
		if isGone(err) {
			return false, err
		}
		if isConflict(err) {
			return false, fmt.Errorf("%w: %w", errAgain, err)
		}
	}
	return false, fmt.Errorf("%w: others replace it all the time", errAgain)
}

// complete completes an upload. A server that refuses conditions gets none, if that is allowed.
func (b *Bucket) complete(ctx context.Context, name string, in *s3.CompleteMultipartUploadInput) error {
	_, err := b.client.CompleteMultipartUpload(ctx, in)
	err = b.wrap(ctx, "CompleteMultipartUpload", name, err)
	if b.options.Unconditional && hasStatus(err, http.StatusNotImplemented) {
		in.IfMatch, in.IfNoneMatch = nil, nil
		_, err = b.client.CompleteMultipartUpload(ctx, in)
		err = b.wrap(ctx, "CompleteMultipartUpload", name, err)
	}
	return err
}

func (u *upload) completed() []types.CompletedPart {
	u.mu.Lock()
	defer u.mu.Unlock()
	var parts []types.CompletedPart
	for _, p := range u.plan.parts {
		parts = append(parts, u.parts[p.number]) // versitygw wants the checksums of all
	}
	return parts
}

// lastly returns a context for what is done at the end, also after ctx has ended: it must not take
// long, for the caller waits.
func lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), lastlyAfter)
}

// abort gives the upload up, so that its parts take no space.
func (u *upload) abort(ctx context.Context) {
	ctx, cancel := lastly(ctx)
	defer cancel()
	b := u.bucket
	if err := b.abort(ctx, u.put.name, &u.id); err != nil && !hasStatus(err, http.StatusNotFound) {
		b.log.WarnContext(ctx, "an upload cannot be aborted: a sweep will", "tarball", u.put.path, "error", err)
	}
	b.forget(ctx, u.put.name, u.put.digest)
}

// abort aborts an upload of an object.
func (b *Bucket) abort(ctx context.Context, name string, id *string) error {
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: b.key(name), UploadId: id, RequestPayer: b.payer()})
	return b.wrap(ctx, "AbortMultipartUpload", name, err)
}

// watchRate ends the transfer when less comes than is required, in the mean of a minute in which
// the server takes what comes.
func (u *upload) watchRate(ctx context.Context, least int64, leading *leader, src tarball.Source) (end func()) {
	if least == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		var took time.Duration
		every := u.bucket.lookEvery
		last, from := u.bucket.now(), leading.moved.Load()
		for wait.Sleep(ctx, every) == nil {
			now := u.bucket.now()
			since := min(now.Sub(last), 2*every) // this process may have been suspended
			last = now
			if u.sink.isFull() {
				continue
			}
			if took += since; took < time.Minute {
				continue
			}
			n := leading.moved.Load()
			if rate := int64(float64(n-from) / took.Seconds()); rate < least {
				u.sink.mu.Lock()
				u.sink.fail(fmt.Errorf("%w: %d bytes a second came from %s in the last minute, and %d are required; what has come is kept: try again, from another source, or require less", cache.ErrTooSlow, rate, sourceOf(u.put, src), least))
				u.sink.mu.Unlock()
				return
			}
			took, from = 0, n
		}
	}()
	return cancel
}

func sourceOf(p *put, src tarball.Source) string {
	if r, ok := src.(cache.Remote); ok {
		return r.Source()
	}
	if p.Provenance.Source != "" {
		return p.Provenance.Source
	}
	return "the source"
}
