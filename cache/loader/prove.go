package loader

import (
	"context"
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

// Prove implements [Engine]. It creates a container, which needs all layers of the
// image to be there, and unpacked, and removes it; nothing runs.
func (d *Docker) Prove(ctx context.Context, id v1.Hash) error {
	request := containerRequest{
		Image: id.String(), Cmd: []string{"never-started"}, Entrypoint: []string{}, NetworkDisabled: true,
		Labels: map[string]string{proofLabel: "the image can be used"},
	}
	request.HostConfig.NetworkMode = "none"
	var created struct {
		ID string `json:"Id"`
	}
	if err := d.call(ctx, http.MethodPost, "/containers/create", nil, request, &created); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return d.call(ctx, http.MethodDelete, "/containers/"+created.ID, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
}
