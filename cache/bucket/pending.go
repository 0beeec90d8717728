package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// pending is the content of the object .<tarball>.<digest>.upload: how far an upload is, so that
// another attempt can go on with it.
type pending struct {
	Version  int       `json:"version"`
	Plan     string    `json:"plan"` // see planID
	Upload   string    `json:"upload"`
	Token    string    `json:"token"`
	Checksum string    `json:"checksum"` // the algorithm of all parts
	Verified time.Time `json:"verified"`
	Least    int64     `json:"least_part"`
	Usual    int64     `json:"part"`
	CopyPart int64     `json:"copied_part"`
	Spans    []span    `json:"spans,omitempty"`
	// Offset is up to where the tarball is stored and hashed, the end of a part. Layer is the
	// one that is there, if one is: N bytes of it are hashed, with State.
	Offset int64  `json:"offset"`
	Layer  string `json:"layer,omitempty"`
	N      int64  `json:"n,omitempty"`
	State  []byte `json:"state,omitempty"`
	Owner  owner  `json:"owner"`
	Beat   int64  `json:"beat"` // counts how often it was written
}

const (
	pendingVersion = 1
	pendingKind    = ".upload"
	// saveStep is how many bytes an upload advances before that is recorded.
	saveStep = 32 << 20
	// deadAfter is for how long an upload of another process may stand still before it counts
	// as abandoned.
	deadAfter = 60 * time.Second
)

// An owner is a process.
type owner struct {
	Host string `json:"host"`
	PID  int    `json:"pid"`
}

func newOwner() owner {
	host, _ := os.Hostname()
	return owner{host, os.Getpid()}
}

// isDead reports whether the process is known to have ended.
func (o owner) isDead() bool {
	host, err := os.Hostname()
	return err == nil && o.Host == host && (o.PID == os.Getpid() || o.PID > 0 && isGonePID(o.PID))
}

func pendingName(name string, digest v1.Hash) string {
	return "." + name + "." + digest.Hex[:min(16, len(digest.Hex))] + pendingKind
}

// planID identifies the bytes of a tarball and its metadata: what an upload can be gone on
// with for.
func planID(layout *tarball.Layout, p *put) string {
	h := sha256.New()
	for _, s := range layout.Segments() {
		fmt.Fprintf(h, "%d %d %s\n", s.Offset, s.Length, s.Blob)
		h.Write(s.Literal)
	}
	metadata := p.identity("", time.Time{}).metadata()
	for _, k := range []string{metaDigest, metaReference, metaRun, metaGroup, metaIndexes} {
		fmt.Fprintf(h, "%q\n", metadata[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// advanced is called when all before an offset is stored.
func (u *upload) advanced(offset int64, s state) {
	u.mu.Lock()
	before := u.pending.Offset
	if offset <= before {
		u.mu.Unlock()
		return
	}
	u.latest = &latest{offset, s}
	isDue := offset-u.saved >= u.bucket.saveStep && !u.saving
	if isDue {
		u.saving = true
	}
	u.mu.Unlock()
	if isDue {
		u.sink.sending.Go(func() { _ = u.save(u.running, false) })
	}
}

// latest is how far an upload is.
type latest struct {
	offset int64
	state
}

// save records how far the upload is.
func (u *upload) save(ctx context.Context, must bool) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	u.mu.Lock()
	if l := u.latest; l != nil {
		u.pending.Offset, u.pending.Layer, u.pending.N, u.pending.State = l.offset, "", l.N, l.State
		if l.N > 0 {
			u.pending.Layer = l.layer.String()
		}
	}
	u.pending.Beat++
	raw, err := json.Marshal(u.pending)
	offset := u.pending.Offset
	u.mu.Unlock()
	if err == nil {
		err = u.bucket.writeSmall(ctx, pendingName(u.put.name, u.put.digest), raw)
	}
	u.mu.Lock()
	u.saving = false
	if err == nil {
		u.saved = offset
	}
	u.mu.Unlock()
	if err != nil && !must {
		u.bucket.log.WarnContext(ctx, "how far an upload is cannot be recorded", "tarball", u.put.path, "error", err)
	}
	return err
}

// forget removes what is recorded of an upload.
func (b *Bucket) forget(ctx context.Context, name string, digest v1.Hash) {
	ctx, cancel := lastly(ctx)
	defer cancel()
	key := pendingName(name, digest)
	if err := b.delete(ctx, key, ""); err != nil {
		b.log.WarnContext(ctx, "the record of an upload cannot be removed: a sweep will", "object", key, "error", err)
	}
}

// writeSmall writes a small object beside the tarballs.
func (b *Bucket) writeSmall(ctx context.Context, name string, content []byte) error {
	in := &s3.PutObjectInput{
		Bucket: &b.name, Key: b.key(name), Body: bytes.NewReader(content), ContentLength: aws.Int64(int64(len(content))),
		ChecksumAlgorithm: types.ChecksumAlgorithm(b.options.Checksum), RequestPayer: b.payer(),
	}
	b.encrypt(&in.ServerSideEncryption, &in.SSEKMSKeyId)
	_, err := b.client.PutObject(ctx, in)
	return b.wrap(ctx, "PutObject", name, err)
}

// readPending reads what is recorded of an upload; nil if there is nothing that can be used.
func (b *Bucket) readPending(ctx context.Context, name string) (*pending, error) {
	var raw []byte
	var err error
	for range readAttempts { // a body may be cut
		if raw, err = b.readSmall(ctx, name); err == nil || ctx.Err() != nil || hasStatus(err, http.StatusNotFound) {
			break
		}
	}
	if hasStatus(err, http.StatusNotFound) && !isNoBucket(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d pending
	if json.Unmarshal(raw, &d) != nil || d.Version != pendingVersion || d.Upload == "" || d.Least < 1 || d.Offset < 0 || d.N < 0 || d.Usual < d.Least || d.CopyPart < d.Least {
		return nil, nil
	}
	return &d, nil
}

// readSmall reads a small object beside the tarballs.
func (b *Bucket) readSmall(ctx context.Context, name string) ([]byte, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: b.key(name), RequestPayer: b.payer()})
	if err != nil {
		return nil, b.wrap(ctx, "GetObject", name, err)
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, 4<<20))
	return raw, b.wrap(ctx, "GetObject", name, err)
}

// adopt returns the upload that an earlier attempt has left, nil if there is none that can be
// gone on with. One of a process that makes progress is waited for.
func (p *put) adopt(ctx context.Context, layout *tarball.Layout) (*upload, error) {
	b, name, plan := p.bucket, pendingName(p.name, p.digest), planID(layout, p)
	var last *pending
	since := b.now()
	for {
		d, err := b.readPending(ctx, name)
		if d == nil || err != nil {
			return nil, err
		}
		if d.Plan != plan {
			return nil, nil // another run's, which goes on beside this one
		}
		if last == nil || last.Token != d.Token || last.Beat != d.Beat {
			last, since = d, b.now()
			if !d.Owner.isDead() {
				b.log.InfoContext(ctx, "another process is stocking the tarball", "tarball", p.path, "host", d.Owner.Host, "process", d.Owner.PID)
			}
		}
		if !d.Owner.isDead() && b.now().Sub(since) < deadAfter {
			if err := wait.Sleep(ctx, b.lookEvery); err != nil {
				return nil, err
			}
			continue
		}
		u, err := p.goOn(ctx, layout, d)
		if err != nil || u == nil {
			if err == nil {
				b.log.InfoContext(ctx, "what an earlier attempt has stored cannot be used", "tarball", p.path)
			}
			return nil, err
		}
		return u, nil
	}
}

// goOn returns the upload that is recorded; nil if it cannot be gone on with.
func (p *put) goOn(ctx context.Context, layout *tarball.Layout, d *pending) (*upload, error) {
	u, err := p.newUpload(layout, d)
	if err != nil || !areWhole(d.Spans, layout) || d.Layer != "" && sha256.New().(encoding.BinaryUnmarshaler).UnmarshalBinary(d.State) != nil {
		return nil, nil // it was not written by this package
	}
	if d.Checksum != p.bucket.options.Checksum {
		u.abort(ctx)
		return nil, nil
	}
	there, err := u.list(ctx)
	if isGone(err) {
		p.bucket.forget(ctx, p.name, p.digest)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	isEnd := d.Offset == 0
	for i, part := range u.plan.parts {
		size, ok := there[part.number]
		ok = ok && size == part.to-part.from
		switch {
		case part.to <= d.Offset && !ok:
			u.abort(ctx)
			return nil, nil
		case part.to <= d.Offset, part.copied != nil && ok:
			u.sink.isSent[i], u.sink.isStored[i] = true, true
		default:
			delete(u.parts, part.number) // it is sent again
		}
		isEnd = isEnd || part.to == d.Offset
	}
	for u.sink.prefix < len(u.plan.parts) && u.sink.isStored[u.sink.prefix] {
		u.sink.prefix++
	}
	for _, l := range u.sink.layers {
		switch {
		case l.here || d.Offset <= l.Offset:
		case d.Offset >= l.Offset+l.Length:
			l.verified, l.hashed = true, l.Length
		case d.Layer == l.Blob.String() && d.N == d.Offset-l.Offset && len(d.State) > 0:
			l.hashed = d.N
		default:
			isEnd = false
		}
	}
	if !isEnd {
		u.abort(ctx)
		return nil, nil
	}
	u.saved = d.Offset
	d.Owner = newOwner()
	if err := u.save(ctx, true); err != nil {
		return nil, err
	}
	if d.Layer != "" && d.Offset > 0 {
		h, _ := v1.NewHash(d.Layer)
		u.sink.states[d.Offset] = state{h, fetch.HashState{N: d.N, State: d.State}}
	}
	return u, nil
}

// list lists the parts that the server has.
func (u *upload) list(ctx context.Context) (sizes map[int32]int64, err error) {
	b := u.bucket
	sizes = map[int32]int64{}
	pages := s3.NewListPartsPaginator(b.client, &s3.ListPartsInput{Bucket: &b.name, Key: b.key(u.put.name), UploadId: &u.id, RequestPayer: b.payer()})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.wrap(ctx, "ListParts", u.put.name, err)
		}
		for _, p := range page.Parts {
			sizes[aws.ToInt32(p.PartNumber)] = aws.ToInt64(p.Size)
			u.add(types.CompletedPart{
				PartNumber: p.PartNumber, ETag: p.ETag,
				ChecksumCRC32: p.ChecksumCRC32, ChecksumCRC32C: p.ChecksumCRC32C, ChecksumCRC64NVME: p.ChecksumCRC64NVME,
			})
		}
	}
	return sizes, nil
}
