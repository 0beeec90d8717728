package report

import (
	"context"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/tarball"
)

// leastFetched is from how many bytes on the rates of a source are believed.
const leastFetched = 64 << 20

// CannotPay says that the largest image of those that were stocked in a directory cannot pay, by the
// rates at which its source gave it and the directory gives it back, which is read for some seconds;
// "" if it may.
func CannotPay(ctx context.Context, results []*Stocked) string {
	return cannotPay(ctx, results, func(ctx context.Context, path string) (*advise.Storage, error) {
		s, _, err := measure.Tarball(ctx, path, measure.Limit{})
		return s, err
	})
}

func cannotPay(ctx context.Context, results []*Stocked, read func(ctx context.Context, path string) (*advise.Storage, error)) string {
	var largest *Stocked
	for _, r := range results {
		if r.Outcome == string(cache.Stocked) && r.BytesDownloaded >= leastFetched && (largest == nil || r.BytesTotal > largest.BytesTotal) {
			largest = r
		}
	}
	if largest == nil {
		return ""
	}
	registry := largest.registry()
	t, err := tarball.Open(largest.Tarball)
	if err != nil || registry == nil {
		return ""
	}
	defer t.Close()
	image := advise.Image{}
	for _, l := range t.Layout.Layers() {
		image.Layers = append(image.Layers, l.Length)
	}
	storage, err := read(ctx, largest.Tarball)
	if err != nil {
		return ""
	}
	ok, why := advise.Pays(advise.Rates{Registry: registry, Storage: storage}, image, advise.Fleet{})
	if ok {
		return ""
	}
	return largest.What() + " cannot pay here: " + why + "; measure all ways with cache-admin advise"
}

// registry is what the source that gave most of the image was like; nil if that is not known. A
// plain pull has as many connections as it wants: that one is slower beside others is not counted.
func (r *Stocked) registry() *advise.Registry {
	var most Source
	for _, s := range r.Sources {
		if s.Bytes > most.Bytes {
			most = s
		}
	}
	if most.Bytes < leastFetched || most.ConnectionsMean <= 0 || most.BytesPerSecond <= 0 {
		return nil
	}
	all := float64(most.BytesPerSecond)
	return &advise.Registry{FirstByte: most.FirstByteSeconds, Connection: all / max(most.ConnectionsMean, 1), All: all}
}
