package loader

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// containerRequest is what is said of the container that proves an image. It is
// never started.
type containerRequest struct {
	Image           string
	Cmd             []string
	Entrypoint      []string
	NetworkDisabled bool
	Labels          map[string]string
	HostConfig      struct{ NetworkMode string }
}

// proofLabel is on the container that proves an image, for those who see it.
const proofLabel = "io.github.dockercache.proof"

// proofTime is how long the engine may still take to create the container, or to
// remove it, when ctx has ended.
const proofTime = 30 * time.Second

// Prove implements [Engine].
//
// Docker's classic store answers no question about an image, as [Docker.Find] has
// just asked, without looking up the chain of its layers; with containerd's, Docker
// 28 and later say whether it is whole and unpacked. With Docker 25 to 27 and that
// store, with podman, and where the engine tells nothing of itself, a container is
// created, which needs all of that, and removed; nothing runs. That is the last
// resort since it makes the engine wait for the disk: right after a load of
// 1 GiB that took 1.1 s on ext4.
func (d *Docker) Prove(ctx context.Context, id v1.Hash) error {
	if about, err := d.about(ctx); err == nil && !about.podman {
		var found imageJSON
		if err := d.inspect(ctx, id.String(), &found); err != nil {
			return err
		}
		switch {
		case !found.usable():
			return fmt.Errorf("%w: image %s is incomplete", ErrEngine, id)
		case !about.containerd || found.proven():
			return nil
		}
	}
	return d.proveByContainer(ctx, id)
}

// ProvesLayers implements [LayerProver]. Docker's classic store unpacks a layer only
// under the diff ID that it has, and compares that with the config's
// (https://github.com/moby/moby/blob/v20.10.24/image/tarexport/load.go).
func (d *Docker) ProvesLayers(ctx context.Context) bool {
	about, err := d.about(ctx)
	return err == nil && !about.podman && !about.containerd
}

func (d *Docker) proveByContainer(ctx context.Context, id v1.Hash) error {
	request := containerRequest{
		Image: id.String(), Cmd: []string{"never-started"}, Entrypoint: []string{}, NetworkDisabled: true,
		Labels: map[string]string{proofLabel: "the image can be used"},
	}
	request.HostConfig.NetworkMode = "none"
	var created struct {
		ID string `json:"Id"`
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// An engine creates the container also when nobody waits for the answer any more,
	// and only the answer says what to remove.
	ctx, cancel := outlive(ctx, proofTime)
	defer cancel()
	if err := d.call(ctx, http.MethodPost, "/containers/create", nil, request, &created); err != nil {
		return err
	}
	return d.call(ctx, http.MethodDelete, "/containers/"+created.ID, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
}

// outlive returns a context that ends so much later than ctx.
func outlive(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(more):
		case <-longer.Done():
		}
		cancel(context.Cause(ctx))
	})
	return longer, func() { stop(); cancel(context.Canceled) }
}
