package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// listAtOnce is how many tarballs are read at a time.
	listAtOnce = 16
	// usedKind ends the name of the object that records when a tarball was used.
	usedKind = ".used"
	// usedEvery is how old what is recorded must be to be recorded again: a request more.
	usedEvery = 24 * time.Hour
)

// A listed object is one of the prefix.
type listed struct {
	size     int64
	etag     string
	modified time.Time
}

// A known object is one of which the beginning was read.
type known struct {
	object
	info *tarball.Info
	err  error
}

// listObjects lists the objects directly below the prefix whose names begin with another
// prefix, by their names.
func (b *Bucket) listObjects(ctx context.Context, prefix string) (map[string]listed, error) {
	all := map[string]listed{}
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{
		Bucket: &b.name, Prefix: aws.String(b.prefix + prefix), Delimiter: aws.String("/"), RequestPayer: b.payer(),
		EncodingType: types.EncodingTypeUrl, // XML cannot have all characters that keys have
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.wrap(ctx, "ListObjectsV2", prefix, err)
		}
		for _, o := range page.Contents {
			name, ok := strings.CutPrefix(decodeKey(o.Key, page.EncodingType), b.prefix)
			if ok && name != "" && !strings.Contains(name, "/") {
				all[name] = listed{aws.ToInt64(o.Size), aws.ToString(o.ETag), aws.ToTime(o.LastModified)}
			}
		}
	}
	return all, nil
}

// decodeKey returns a key of a list, which is encoded as in a URL if the server says so.
func decodeKey(key *string, encoding types.EncodingType) string {
	text := aws.ToString(key)
	if encoding == types.EncodingTypeUrl {
		if decoded, err := url.QueryUnescape(text); err == nil {
			return decoded
		}
	}
	return text
}

func isTarballName(name string) bool {
	return !strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tar")
}

// tarballsIn returns the names of tarballs among objects, in order.
func tarballsIn(all map[string]listed) []string {
	names := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(names, func(name string) bool { return !isTarballName(name) })
}

// List returns all tarballs of the prefix, in the order of their names, as [cache.Dir.List]
// does. It makes a request for each 1000 objects and one for each tarball that this Bucket has
// not read before.
func (b *Bucket) List(ctx context.Context) ([]cache.Entry, error) {
	entries, _, err := b.list(ctx, nil)
	return entries, err
}

// list lists the tarballs whose names are among these, all if they are nil, and all objects.
func (b *Bucket) list(ctx context.Context, among map[string]bool) ([]cache.Entry, map[string]listed, error) {
	all, err := b.listObjects(ctx, "")
	if err != nil {
		return nil, nil, fmt.Errorf("list tarballs: %w", err)
	}
	b.mu.Lock()
	maps.DeleteFunc(b.infos, func(name string, _ known) bool { _, ok := all[name]; return !ok })
	b.mu.Unlock()
	names := tarballsIn(all)
	if among != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return !among[name] })
	}
	entries := make([]cache.Entry, len(names))
	var group errgroup.Group
	group.SetLimit(listAtOnce)
	for i, name := range names {
		group.Go(func() error {
			if ctx.Err() != nil {
				return wait.Err(ctx)
			}
			entries[i] = b.entry(ctx, name, all)
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = wait.Err(ctx)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list tarballs in %s: %w", b.Path(), err)
	}
	return slices.DeleteFunc(entries, func(e cache.Entry) bool { return errors.Is(e.Err, fs.ErrNotExist) }), all, nil
}

// Entries returns what [Bucket.List] returns of the tarballs called names, in their order. One
// that is not there is left out.
func (b *Bucket) Entries(ctx context.Context, names []string) ([]cache.Entry, error) {
	among := map[string]bool{}
	for _, name := range names {
		among[name] = true
	}
	all, _, err := b.list(ctx, among)
	if err != nil {
		return nil, err
	}
	var entries []cache.Entry
	for _, name := range names {
		if i := slices.IndexFunc(all, func(e cache.Entry) bool { return e.Name == name }); i >= 0 {
			entries = append(entries, all[i])
		}
	}
	return entries, nil
}

func (b *Bucket) entry(ctx context.Context, name string, all map[string]listed) cache.Entry {
	l := all[name]
	e := cache.Entry{Name: name, Size: l.size, Allocated: l.size, Written: l.modified, LastUsed: l.modified}
	switch e.Err = cache.CheckName(name); {
	case e.Err != nil:
	case l.size == 0:
		e.Err = b.errEmpty(name)
	default:
		k := b.info(ctx, name, l.etag)
		if e.Err, e.Info = k.err, k.info; e.Err == nil {
			e.Run, e.Group = k.info.Provenance.Run, cache.DefaultGroup(name)
			if i := k.identity; i != nil {
				e.Group = cmp.Or(i.group, e.Group)
				if i.run.NewerThan(e.Run) {
					e.Run = i.run
				}
			}
		}
	}
	if used, ok := all["."+name+usedKind]; ok && used.modified.After(e.LastUsed) {
		e.LastUsed = used.modified
	}
	return e
}

// info returns what an object holds, which is read if it is not known.
func (b *Bucket) info(ctx context.Context, name, etag string) known {
	b.mu.Lock()
	k, ok := b.infos[name]
	b.mu.Unlock()
	if ok && k.etag == etag {
		return k
	}
	o, info, err := b.readInfo(ctx, name)
	k = known{info: info, err: err}
	if o != nil {
		k.object = *o
	}
	if err == nil || errors.Is(err, tarball.ErrNotTarball) {
		b.mu.Lock()
		b.infos[name] = k
		b.mu.Unlock()
	}
	return k
}

// holders returns the objects that have layers of a tarball and can be copied from, those of
// its own name and group first, and when the first of their bytes was hashed.
func (b *Bucket) holders(ctx context.Context, name string, layout *tarball.Layout) (holders []holder, since time.Time) {
	since = b.now()
	all, err := b.listObjects(ctx, "")
	if err != nil {
		b.log.WarnContext(ctx, "no layer can be copied from another tarball", "error", err)
		return nil, since
	}
	names := tarballsIn(all)
	slices.SortStableFunc(names, func(x, y string) int { return nearness(y, name) - nearness(x, name) })
	found := make([]*holder, len(names))
	times := make([]time.Time, len(names))
	var group errgroup.Group
	group.SetLimit(listAtOnce)
	for i, n := range names {
		group.Go(func() error {
			k := b.info(ctx, n, all[n].etag)
			if k.err != nil || k.identity == nil || b.now().Sub(k.verified) > b.options.TrustFor || k.info.Image.Digest() != k.identity.digest {
				return nil
			}
			found[i], times[i] = &holder{origin{b.prefix + n, k.etag}, k.info.Layout}, k.verified
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	for i, h := range found {
		if h == nil || !slices.ContainsFunc(layout.Layers(), func(s tarball.Segment) bool { _, ok := h.layout.Layer(s.Blob); return ok }) {
			continue
		}
		holders = append(holders, *h)
		if times[i].Before(since) {
			since = times[i]
		}
	}
	return holders, since
}

// nearness is 2 for the name itself, 1 for one of its group, 0 for others.
func nearness(n, name string) int {
	switch {
	case n == name:
		return 2
	case cache.DefaultGroup(n) == cache.DefaultGroup(name):
		return 1
	}
	return 0
}

// Touch records that the tarball called name is used now, which makes [Bucket.Prune] take others
// first: by an empty object beside it, once a day, by the server's clock. The errors:
// [cache.ErrInvalidName]; [fs.ErrNotExist]; those of requests.
func (b *Bucket) Touch(ctx context.Context, name string) error {
	if err := cache.CheckName(name); err != nil {
		return err
	}
	o, err := b.head(ctx, name)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("%s: %w", b.address(name), fs.ErrNotExist)
	}
	return b.record(ctx, o)
}

// touch is Touch for an object that was just looked at. It is best effort.
func (b *Bucket) touch(ctx context.Context, o *object) {
	if err := b.record(ctx, o); err != nil && ctx.Err() == nil {
		b.log.WarnContext(ctx, "the use of a tarball cannot be recorded", "tarball", o.name, "error", err)
	}
}

// record writes the object that records a use, unless it is known that another was recorded
// less than a day ago, by any process.
func (b *Bucket) record(ctx context.Context, o *object) error {
	now, used := b.now(), "."+o.name+usedKind
	isRecent := func(at time.Time) bool { return now.Sub(at) < usedEvery }
	b.mu.Lock()
	last, ok := b.touched[o.name]
	b.mu.Unlock()
	if isRecent(o.modified) || ok && isRecent(last) {
		return nil
	}
	// One that may not be looked at is written: that shows what is wrong.
	if there, err := b.head(ctx, used); err == nil && there != nil && isRecent(there.modified) {
		now = there.modified
	} else if err := b.writeSmall(ctx, used, nil); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched[o.name] = now
	return nil
}
