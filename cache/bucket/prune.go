package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/wait"
)

// Remove removes the tarball called name, and what is recorded of it. A reader that has it open
// fails. The errors: [cache.ErrInvalidName]; [fs.ErrNotExist]; those of requests.
func (b *Bucket) Remove(ctx context.Context, name string) error {
	path, err := b.tarballPath(name)
	if err != nil {
		return err
	}
	o, err := b.head(ctx, name)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return b.remove(ctx, name, o.etag)
}

// remove removes a tarball, if it is still the one with this ETag.
func (b *Bucket) remove(ctx context.Context, name, etag string) error {
	if err := b.delete(ctx, name, etag); err != nil {
		return err
	}
	if err := b.delete(ctx, "."+name+usedKind, ""); err != nil && ctx.Err() == nil {
		b.log.WarnContext(ctx, "what is recorded of a tarball that is gone cannot be removed: a sweep will", "tarball", b.address(name), "error", err)
	}
	return nil
}

// delete deletes an object, if an ETag is given only in that state.
func (b *Bucket) delete(ctx context.Context, name, etag string) error {
	in := &s3.DeleteObjectInput{Bucket: &b.name, Key: b.key(name), RequestPayer: b.payer()}
	if etag != "" {
		in.IfMatch = &etag
	}
	_, err := b.client.DeleteObject(ctx, in)
	if err = b.wrap(ctx, "DeleteObject", name, err); etag == "" || !hasStatus(err, http.StatusNotImplemented) {
		return err
	}
	// The server has no conditions of deletions. A moment is left between look and deletion.
	switch o, headErr := b.head(ctx, name); {
	case headErr != nil:
		return headErr
	case o == nil:
		return fmt.Errorf("%s: %w", b.address(name), fs.ErrNotExist)
	case o.etag != etag:
		return &Error{Op: "DeleteObject", Address: b.address(name), Action: actions["DeleteObject"], Code: "PreconditionFailed", Status: http.StatusPreconditionFailed, Err: cache.ErrReplaced}
	}
	return b.delete(ctx, name, "")
}

// Prune removes tarballs until the prefix is within limits, the least recently used first, as
// [cache.Dir.Prune] does, and sweeps as [Bucket.Sweep] does. Readers are not seen: one that has a
// removed tarball open fails. One that is replaced meanwhile stays. Foreign archives stay.
func (b *Bucket) Prune(ctx context.Context, o *cache.PruneOptions) (*cache.PruneResult, error) {
	if o == nil {
		o = &cache.PruneOptions{}
	}
	r := &cache.PruneResult{}
	if err := o.Check(); err != nil {
		return r, err
	}
	var errs []error
	swept, err := b.Sweep(ctx, &cache.SweepOptions{Age: o.LeftoverAge, DryRun: o.DryRun})
	if r.Swept = swept; err != nil {
		errs = append(errs, fmt.Errorf("prune: %w", err))
	}
	all, objects, err := b.list(ctx, nil)
	if err != nil {
		return r, errors.Join(append(errs, fmt.Errorf("prune: %w", err))...)
	}
	errs = append(errs, cache.PruneEntries(ctx, all, o, r, b.now(), func(e *cache.Entry) (replaced bool, err error) {
		if o.DryRun {
			return false, nil
		}
		switch err := b.remove(ctx, e.Name, objects[e.Name].etag); {
		case errors.Is(err, fs.ErrNotExist): // another has removed it
			return false, nil
		case isPrecondition(err):
			return true, nil
		default:
			return false, err
		}
	}))
	return r, errors.Join(errs...)
}

// Sweep removes what writers have left: uploads that were begun longer ago than the age and
// have not advanced since, with what is recorded of them, and what is recorded of tarballs that
// are gone. A rule of the bucket's lifecycle, AbortIncompleteMultipartUpload, does the first too.
// It returns what is gone, in the order of the names.
func (b *Bucket) Sweep(ctx context.Context, o *cache.SweepOptions) ([]cache.Leftover, error) {
	if o == nil {
		o = &cache.SweepOptions{}
	}
	age := o.Age
	if age == 0 {
		age = cache.DefaultSweepAge
	}
	all, err := b.listObjects(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var gone []cache.Leftover
	var errs []error
	now := b.now()
	alive := map[string]bool{} // uploads that have advanced, and names of tarballs with ones that may have
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l, kind := all[name], cache.LeftoverKind("")
		isOld := now.Sub(l.modified) >= age
		switch {
		case !strings.HasPrefix(name, "."):
			continue
		case strings.HasSuffix(name, pendingKind):
			if !isOld {
				d, err := b.readPending(ctx, name)
				if err != nil {
					errs = append(errs, err)
				}
				if d != nil {
					alive[d.Upload] = true
				} else { // it cannot be read, or is another version's
					alive[tarballOf(name)] = true
				}
				continue
			}
			kind = cache.JournalLeftover
		case strings.HasSuffix(name, usedKind):
			if _, ok := all[strings.TrimSuffix(name[1:], usedKind)]; ok || !isOld {
				continue
			}
			kind = cache.MarkLeftover
		default:
			continue
		}
		if !o.DryRun {
			if err := b.delete(ctx, name, l.etag); err != nil && !errors.Is(err, fs.ErrNotExist) {
				if isPrecondition(err) { // its writer goes on
					alive[tarballOf(name)] = true
				} else {
					errs = append(errs, err)
				}
				continue
			}
		}
		gone = append(gone, cache.Leftover{Name: name, Kind: kind, Bytes: l.size, Age: now.Sub(l.modified)})
	}
	uploads, err := b.sweepUploads(ctx, age, alive, o.DryRun)
	gone = append(gone, uploads...)
	slices.SortStableFunc(gone, func(x, y cache.Leftover) int { return strings.Compare(x.Name, y.Name) })
	if errs = append(errs, err); ctx.Err() != nil {
		return gone, wait.Err(ctx)
	}
	return gone, errors.Join(errs...)
}

// tarballOf is the tarball to which a record of an upload belongs, see pendingName.
func tarballOf(pending string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(pending, "."), pendingKind)
	if i := strings.LastIndex(name, "."); i > 0 {
		return name[:i]
	}
	return name
}

// sweepUploads aborts uploads of tarballs of the prefix that are older than the age, and that
// are not alive: the IDs of uploads, or the names of tarballs.
func (b *Bucket) sweepUploads(ctx context.Context, age time.Duration, alive map[string]bool, dry bool) (gone []cache.Leftover, err error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &b.prefix, RequestPayer: b.payer(), EncodingType: types.EncodingTypeUrl}
	var errs []error
	for {
		page, err := b.client.ListMultipartUploads(ctx, in)
		if err != nil {
			return gone, errors.Join(append(errs, b.wrap(ctx, "ListMultipartUploads", "", err))...)
		}
		for _, u := range page.Uploads {
			key, id := decodeKey(u.Key, page.EncodingType), aws.ToString(u.UploadId)
			name, ok := strings.CutPrefix(key, b.prefix)
			since := b.now().Sub(aws.ToTime(u.Initiated))
			if !ok || strings.Contains(name, "/") || !isTarballName(name) && !strings.HasSuffix(name, pendingKind) || since < age || alive[id] || alive[name] {
				continue
			}
			if !dry {
				if err := b.abort(ctx, name, &id); err != nil && !isGone(err) {
					errs = append(errs, err)
					continue
				}
			}
			gone = append(gone, cache.Leftover{Name: name, Kind: cache.PartialLeftover, Age: since})
		}
		key := decodeKey(page.NextKeyMarker, page.EncodingType)
		id := aws.ToString(page.NextUploadIdMarker)
		if !aws.ToBool(page.IsTruncated) || key == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
			return gone, errors.Join(errs...)
		}
		in.KeyMarker, in.UploadIdMarker = &key, &id // the SDK's paginator does not decode it
	}
}
