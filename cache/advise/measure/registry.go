package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// RegistryOptions of [Registry]. The zero value of each field works.
type RegistryOptions struct {
	// One is the limit of one connection, All that of many together. Default: 5 s; 64 MiB and
	// 256 MiB.
	One, All Limit
	// Connections is how many many are. Default: 16.
	Connections int
}

const (
	// What each of many connections asks for at a time, at most and at least.
	mostRange, leastRange = 8 << 20, 256 << 10
	firstByteTries        = 3
)

// Registry measures what gives the layers of an image: the time to the first byte, the rate of one
// connection, that of many. It reads layers from their beginning, none of them twice; what is read is
// not kept. A source that fails, as one that limits requests, ends the sample with what is known; if that
// is nothing, it is the error.
func Registry(ctx context.Context, img *tarball.Image, src tarball.Source, o *RegistryOptions) (*advise.Registry, []Sample, error) {
	if o == nil {
		o = &RegistryOptions{}
	}
	r := reading{src: src, whole: ignoresRanges(src, nil)}
	seen := map[v1.Hash]bool{}
	for _, l := range img.Layers() {
		if l.Size > 0 && !seen[l.Digest] {
			seen[l.Digest] = true
			r.layers = append(r.layers, l)
		}
	}
	if len(r.layers) == 0 {
		return nil, nil, fmt.Errorf("measure the registry of %s: the image has no layer with any bytes", img.Reference())
	}
	connections := o.Connections
	if connections <= 0 {
		connections = 16
	}
	first := r.firstBytes(ctx)
	limit := o.One.or(5*time.Second, 64<<20)
	limit.Bytes = min(limit.Bytes, max(r.total()/4, 1)) // the rest is for many connections
	one := r.one(ctx, limit)
	waited := median(r.waited) // before many connections make each other wait
	all := r.all(ctx, o.All.or(5*time.Second, 256<<20), connections)
	if err := wait.Err(ctx); err != nil {
		return nil, nil, err
	}
	if one.rate()+all.rate() == 0 {
		return nil, nil, fmt.Errorf("measure the registry of %s: too little has come in the time to know: %w", img.Reference(), cmp.Or(r.failed, errTime))
	}
	if waited == 0 {
		waited = median(r.waited)
	}
	result := &advise.Registry{FirstByte: waited, Connection: one.rate(), All: all.rate()}
	if one.rate() == 0 {
		result.Connection = all.rate() / float64(connections)
		one.Note = joinNotes(one.Note, "taken for its part of many")
	}
	// What one connection gives, all of them give too; a small image ends before they are fast.
	result.All = max(result.All, result.Connection)
	return result, []Sample{first, one, all}, nil
}

// A reading is the reading of layers from a source. The sum of all samples is what it has read.
type reading struct {
	src    tarball.Source
	layers []v1.Descriptor
	whole  bool // the source gives layers from their beginning alone

	mu     sync.Mutex
	next   int   // the layer that is read next
	at     int64 // from where on
	waited []time.Duration
	failed error // the last one
}

func (r *reading) total() (n int64) {
	for _, l := range r.layers {
		n += l.Size
	}
	return n
}

// ignoresRanges reports whether a source, or the error of one, gives layers from their beginning alone.
func ignoresRanges(src tarball.Source, err error) bool {
	if i, ok := src.(tarball.RangeIgnorer); ok && i.IgnoresRange() {
		return true
	}
	var i tarball.RangeIgnorer
	return errors.As(err, &i) && i.IgnoresRange()
}

// take returns the next range that is to be read, of at most n bytes; false when all was.
func (r *reading) take(n int64) (layer v1.Descriptor, offset, length int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == len(r.layers) {
		return v1.Descriptor{}, 0, 0, false
	}
	layer, offset = r.layers[r.next], r.at
	length = min(n, layer.Size-offset)
	if r.whole {
		length = layer.Size - offset
	}
	if r.at += length; r.at == layer.Size {
		r.next, r.at = r.next+1, 0
	}
	return layer, offset, length, true
}

// read reads a range until ctx ends, and calls add with how much has come. It returns how long the first
// byte took.
func (r *reading) read(ctx context.Context, layer v1.Hash, offset, length int64, add func(n int64)) error {
	begun := time.Now()
	body, err := r.src.ReadRange(ctx, layer, offset, length)
	if err != nil {
		return err
	}
	defer body.Close()
	buffer := make([]byte, 64<<10)
	for first := true; ; {
		n, err := body.Read(buffer)
		if n > 0 && first {
			first = false
			r.mu.Lock()
			r.waited = append(r.waited, time.Since(begun))
			r.mu.Unlock()
		}
		add(int64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// note records an error that has ended a sample, and returns what people should know of it.
func (r *reading) note(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(context.Cause(ctx), errTime):
		return endedByTime
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
	return "ended by an error: " + err.Error()
}

// firstBytes asks for the first byte of the largest layer a few times. The median counts, with the
// ranges that are asked for later: the first one makes a connection and logs in.
func (r *reading) firstBytes(ctx context.Context) Sample {
	s := Sample{}
	largest := r.layers[0]
	for _, l := range r.layers {
		if l.Size > largest.Size {
			largest = l
		}
	}
	asking, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errTime)
	defer cancel()
	begun, tries := time.Now(), 0
	for ; tries < firstByteTries && s.Note == ""; tries++ {
		err := r.read(asking, largest.Digest, 0, 1, func(n int64) { s.Bytes += n })
		if ignoresRanges(r.src, err) {
			r.whole = true
		}
		s.Note = r.note(asking, err)
	}
	s.What, s.Took = times(tries, "request")+" for a byte", time.Since(begun)
	return s
}

// one reads the first layers over one connection. The time before the first byte does not count.
func (r *reading) one(ctx context.Context, limit Limit) Sample {
	s := Sample{What: "read over 1 connection"}
	reading, cancel := context.WithTimeoutCause(ctx, limit.Time, errTime)
	defer cancel()
	for s.Bytes < limit.Bytes && s.Note == "" {
		layer, offset, length, ok := r.take(limit.Bytes - s.Bytes)
		if !ok {
			break
		}
		began := time.Time{}
		err := r.read(reading, layer.Digest, offset, min(length, limit.Bytes-s.Bytes), func(n int64) {
			if began.IsZero() && n > 0 {
				began, s.untimed = time.Now(), s.untimed+n
			}
			s.Bytes += n
		})
		if !began.IsZero() {
			s.Took += time.Since(began)
		}
		s.Note = r.note(reading, err)
	}
	return s
}

// all reads what follows over many connections, of which each asks for range after range.
func (r *reading) all(ctx context.Context, limit Limit, connections int) Sample {
	s := Sample{What: fmt.Sprintf("read over %d connections", connections)}
	reading, cancel := context.WithTimeoutCause(ctx, limit.Time, errTime)
	defer cancel()
	var mu sync.Mutex
	asked := int64(0)
	var began time.Time // the first byte of all
	var all sync.WaitGroup
	r.mu.Lock()
	rangeSize := r.total()
	for _, l := range r.layers[:r.next] {
		rangeSize -= l.Size
	}
	rangeSize = min(max(min(rangeSize-r.at, limit.Bytes)/int64(2*connections), leastRange), mostRange)
	r.mu.Unlock()
	for range connections {
		all.Go(func() {
			for {
				mu.Lock()
				n := min(rangeSize, limit.Bytes-asked)
				if n <= 0 || s.Note != "" {
					mu.Unlock()
					return
				}
				layer, offset, length, ok := r.take(n)
				asked += length
				mu.Unlock()
				if !ok {
					return
				}
				err := r.read(reading, layer.Digest, offset, length, func(n int64) {
					mu.Lock()
					defer mu.Unlock()
					if began.IsZero() && n > 0 {
						began = time.Now()
					}
					s.Bytes += n
					if s.Bytes >= limit.Bytes {
						cancel()
					}
				})
				if err != nil {
					mu.Lock()
					if s.Bytes < limit.Bytes && s.Note == "" {
						s.Note = r.note(reading, err)
					}
					mu.Unlock()
					cancel()
					return
				}
			}
		})
	}
	all.Wait()
	if !began.IsZero() {
		s.Took = time.Since(began)
	}
	return s
}
