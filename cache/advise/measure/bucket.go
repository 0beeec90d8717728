package measure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A Store is what tarballs can be put into: a bucket.Bucket is one.
type Store interface {
	Path() string
	Put(ctx context.Context, name string, img *tarball.Image, src tarball.Source, o *cache.PutOptions) (*cache.Result, error)
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
	Remove(ctx context.Context, name string) error
}

// BucketOptions of [Bucket]. The zero value of each field works.
type BucketOptions struct {
	// Limit of the two samples that read, and of how many bytes are written. Default: 5 s, 64 MiB.
	Limit Limit
	// Readers is how many tarballs are read at the same time. Default: 3.
	Readers int
}

// oneRequest is how many bytes a bucket.Bucket reads by one request.
const oneRequest = 4 << 20

// Bucket measures a bucket: it puts an image of random bytes into it, called
// advise-sample-<unique>.tar, reads it by one connection and by many, and removes it.
func Bucket(ctx context.Context, b Store, o *BucketOptions) (_ *advise.Storage, _ []Sample, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure %s: %w", b.Path(), err)
		}
	}()
	if o == nil {
		o = &BucketOptions{}
	}
	limit, readers := o.Limit.or(5*time.Second, 64<<20), o.Readers
	if readers <= 0 {
		readers = 3
	}
	c := &content{tar: make([]byte, limit.Bytes/512*512), plain: true}
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	_, _ = mathrand.NewChaCha8(seed).Read(c.tar)
	unique := strings.ToLower(rand.Text())
	img, src, err := c.image(ctx, sampleRepository+":"+unique, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return nil, nil, err
	}
	name := "advise-sample-" + unique + ".tar"
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		if failed := b.Remove(ctx, name); failed != nil && err == nil {
			err = fmt.Errorf("the sample %s stays: %w", name, failed)
		}
	}()
	layer := img.Layers()[0]
	begun := time.Now()
	if _, err := b.Put(ctx, name, img, src, nil); err != nil {
		return nil, nil, err
	}
	wrote := Sample{What: "stored as an object", Bytes: layer.Size, Took: time.Since(begun)}
	one, err := readObject(ctx, b, name, layer, 1, oneRequest, limit)
	if err != nil {
		return nil, nil, err
	}
	one.What = "read by one request at a time"
	many, err := readObject(ctx, b, name, layer, readers, layer.Size, limit)
	if err != nil {
		return nil, nil, err
	}
	many.What = "read as " + times(readers, "load") + " would"
	return &advise.Storage{
		Bucket: true, Shared: true, Write: wrote.rate(), ReadOne: one.rate(), ReadMany: max(many.rate(), one.rate()),
	}, []Sample{wrote, one, many}, nil
}

// readObject reads a layer by several readers, each all of it, in pieces.
func readObject(ctx context.Context, b Store, name string, layer v1.Descriptor, readers int, piece int64, limit Limit) (s Sample, err error) {
	reading, cancel := context.WithTimeoutCause(ctx, limit.Time, errTime)
	defer cancel()
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	var tarballs []*tarball.Tarball
	defer func() {
		for _, t := range tarballs {
			_ = t.Close()
		}
	}()
	for range readers {
		t, err := b.Get(ctx, name)
		if err != nil {
			return s, err
		}
		tarballs = append(tarballs, t)
	}
	begun := time.Now()
	for _, t := range tarballs {
		all.Go(func() {
			for at := int64(0); at < layer.Size && reading.Err() == nil; at += piece {
				body, err := t.ReadRange(reading, layer.Digest, at, min(piece, layer.Size-at))
				if err == nil {
					buffer := make([]byte, 256<<10)
					for err == nil {
						var n int
						n, err = body.Read(buffer)
						mu.Lock()
						s.Bytes += int64(n)
						mu.Unlock()
					}
					_ = body.Close()
				}
				if !errors.Is(err, io.EOF) {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
			}
			cancel() // when the first is done, all have read all the time
		})
	}
	all.Wait()
	s.Took = time.Since(begun)
	switch {
	case wait.Err(ctx) != nil:
		return s, wait.Err(ctx)
	case errors.Is(context.Cause(reading), errTime):
		s.Note = endedByTime
	case failed != nil && s.Bytes == 0:
		return s, failed
	}
	if s.Bytes == 0 {
		return s, fmt.Errorf("nothing came in %v", limit.Time)
	}
	return s, nil
}
