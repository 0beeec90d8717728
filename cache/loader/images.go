package loader

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
)

// imageJSON is what is used of GET /images/{name}/json.
type imageJSON struct {
	ID     string `json:"Id"`
	RootFS struct{ Layers []v1.Hash }
	// Manifests is there with containerd's store since API 1.48.
	Manifests []struct {
		ID        string
		Available bool // all blobs are there
		ImageData *struct {
			Size struct{ Unpacked int64 }
		}
	}
}

// inspect asks about the image that has a name or an ID.
func (d *Docker) inspect(ctx context.Context, image string, found *imageJSON) error {
	// Who does not know what "manifests" is says nothing of them.
	return d.call(ctx, http.MethodGet, "/images/"+image+"/json", url.Values{"manifests": {"1"}}, nil, found)
}

// Find implements [Engine].
func (d *Docker) Find(ctx context.Context, reference string) (id v1.Hash, usable bool, err error) {
	var found imageJSON
	err = d.inspect(ctx, reference, &found)
	// An engine fails at an image that it has lost a part of: there is none to use.
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusInternalServerError) {
		return v1.Hash{}, false, nil
	}
	if err != nil {
		return v1.Hash{}, false, err
	}
	if id, err = parseID(found.ID); err != nil {
		return v1.Hash{}, false, err
	}
	return id, found.usable(), nil
}

// usable tells of an image in containerd's store whether it is whole and unpacked:
// that of a broken archive is kept all the same
// (https://github.com/moby/moby/issues/48293). Other stores have no such images,
// and say nothing of it.
func (i *imageJSON) usable() bool {
	for _, m := range i.Manifests {
		if m.ID == i.ID && (!m.Available || m.ImageData != nil && m.ImageData.Size.Unpacked == 0 && len(i.RootFS.Layers) > 0) {
			return false
		}
	}
	return true
}

// proven tells whether the engine itself says that all of the image can be used.
func (i *imageJSON) proven() bool {
	for _, m := range i.Manifests {
		if m.ID == i.ID && m.Available && m.ImageData != nil && m.ImageData.Size.Unpacked > 0 {
			return true
		}
	}
	return false
}

// inspectAtOnce is how many images are asked about at a time.
const inspectAtOnce = 8

// Has implements [Engine]. It asks for every local image: their layers are said
// nowhere else.
func (d *Docker) Has(ctx context.Context, image *cache.Image) (map[v1.Hash]bool, error) {
	about, err := d.about(ctx)
	if err != nil || !about.knownToTakeDeltas() {
		return nil, err
	}
	var list []struct {
		ID string `json:"Id"`
	}
	if err := d.get(ctx, "/images/json", &list); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var rootFS [][]v1.Hash
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inspectAtOnce)
	for _, l := range list {
		group.Go(func() error {
			var found imageJSON
			err := d.inspect(ctx, l.ID, &found)
			switch {
			case errors.Is(err, ErrEngine): // removed meanwhile, or damaged
				return nil
			case err != nil:
				return err
			case !found.usable(): // it lists what is not there
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			rootFS = append(rootFS, found.RootFS.Layers)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if about.containerd {
		return blobHas(image, rootFS), nil
	}
	return chainHas(image, rootFS), nil
}

// Name implements [Engine].
func (d *Docker) Name(ctx context.Context, name string, id v1.Hash) error {
	if (id == v1.Hash{}) {
		err := d.call(ctx, http.MethodDelete, "/images/"+name, nil, nil, nil)
		if isStatus(err, http.StatusNotFound) {
			return nil
		}
		return err
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	tag := ""
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	query := url.Values{"repo": {named.Name()}, "tag": {tag}}
	return d.call(ctx, http.MethodPost, "/images/"+id.String()+"/tag", query, nil, nil)
}
