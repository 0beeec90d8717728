package store

import (
	"cmp"
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/stocked"
	"github.com/dockercache/dockercache/tagging"
)

// A Stocked is the image of a tarball in a store, from which another store is filled. It is
// a [cache.Remote] and a [cache.Indexer].
type Stocked struct {
	*tarball.Tarball
	at string
}

// From opens the tarball of an image, by the image's names. The errors are those of
// [stocked.Find]. Close must be called in the end.
func From(ctx context.Context, from Store, image string, names tagging.Names) (*Stocked, error) {
	t, err := stocked.Find(ctx, from, image, names)
	if err != nil {
		if t != nil {
			_ = t.Close()
		}
		return nil, err
	}
	_ = from.Touch(ctx, names.Tarball) // best effort: who may read need not be allowed to write
	return &Stocked{t, from.Path()}, nil
}

// ProvenanceFor returns where the image came from, which is where it can be found again:
// with the same provenance the tarball is the same, byte by byte. run is the build run
// that names the image now, if there is one.
func (s *Stocked) ProvenanceFor(run tarball.Run) tarball.Provenance {
	p := s.Provenance
	p.Source = cmp.Or(p.Source, s.Image.Reference())
	if run.ID != 0 && (p.Run.ID == 0 || run.NewerThan(p.Run)) {
		p.Run = run
	}
	return p
}

// Digest implements [cache.Remote].
func (s *Stocked) Digest() v1.Hash { return s.Image.Digest() }

// Source implements [cache.Remote]: it is the path or the address of the tarball.
func (s *Stocked) Source() string { return s.Name() }

// Content implements [cache.Remote].
func (s *Stocked) Content(context.Context) (manifest, config []byte, err error) {
	return s.Image.Manifest(), s.Image.Config(), nil
}

// Indexes implements [cache.Indexer].
func (s *Stocked) Indexes() [][]byte { return s.Image.Indexes() }

// EachOrigin implements [tarball.MultiSource], for reports to name the store.
func (s *Stocked) EachOrigin(_ v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read tarball.ReadRangeFunc) bool) {
	yield(s.at, s.at, false, 0, s.ReadRange)
}
