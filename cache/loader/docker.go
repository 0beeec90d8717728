package loader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Docker is an engine that speaks Docker's Engine API: Docker's own, or podman. It
// is made by [Connect].
type Docker struct {
	host   Host
	client *http.Client
	base   string // of the URLs, with the API's version
	podman bool
	libpod string // of the URLs of podman's own API
	// silent: with containerd's store it does not say whether an image is whole.
	silent bool

	mu   sync.Mutex
	info *info // nil until it is needed
}

// info is what an engine says of itself.
type info struct {
	id      string
	version string // such as 20.10.24+dfsg1
	podman  bool
	// containerd: images are kept by containerd, which knows layers by the digests
	// of their blobs. Docker calls it the containerd image store.
	containerd bool
	driver     string // of layers, such as overlay2
}

// Connect finds out whether an engine listens at a host. The error wraps [ErrHost],
// [ErrUnreachable], or [ErrEngine] when what answers is none.
func Connect(ctx context.Context, host Host) (*Docker, error) {
	client, base, err := host.client()
	if err != nil {
		return nil, err
	}
	d := &Docker{host: host, client: client, base: base}
	resp, err := d.do(ctx, http.MethodGet, "/_ping", nil, nil, 0, "")
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", host.Address, err)
	}
	_ = resp.Body.Close()
	// From here on the engine's own version of the API is spoken: what is asked for
	// has been the same in all since 1.24.
	version := resp.Header.Get("Api-Version")
	number, err := parseVersion(version)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w: it answers with API version %q: is that a container engine?", host.Address, ErrEngine, version)
	}
	if libpod := resp.Header.Get("Libpod-Api-Version"); libpod != "" {
		d.podman, d.libpod = true, d.base+"/v"+libpod
	}
	d.base += "/v" + version
	d.silent = number < saysManifests
	return d, nil
}

// saysManifests is the version of the API from which on the manifests of an image
// are told, and which of them are whole.
var saysManifests = version(1, 48)

// about asks the engine about itself, once. It is not cheap: Docker runs other
// programs for their versions, some 100 ms in all, so what needs no more than a
// look at an image does without.
func (d *Docker) about(ctx context.Context) (info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.info != nil {
		return *d.info, nil
	}
	var said struct {
		ID            string
		ServerVersion string
		Driver        string
		DriverStatus  [][2]string
	}
	if err := d.get(ctx, "/info", &said); err != nil {
		return info{}, err
	}
	i := info{id: said.ID, version: said.ServerVersion, podman: d.podman, driver: said.Driver}
	i.containerd = slices.Contains(said.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
	if i.id == "" || i.podman { // podman makes up a new ID for each answer
		i.id = d.host.Address
	}
	d.info = &i
	return i, nil
}

// String names what an engine is for people.
func (i info) String() string {
	product, store := "Docker", "classic store"
	if i.podman {
		product, store = "podman", "containers-storage"
	}
	if i.containerd {
		store = "containerd store"
	}
	return fmt.Sprintf("%s %s (%s, %s)", product, i.version, store, i.driver)
}

// ID implements [Engine]: the engine's own ID, or its address if it has none or
// does not tell.
func (d *Docker) ID(ctx context.Context) (string, error) {
	about, err := d.about(ctx)
	if errors.Is(err, ErrEngine) { // an authorization plugin may deny it
		return d.host.Address, nil
	}
	return about.id, err
}

// Describe names the engine for people: product, version, store, address.
func (d *Docker) Describe(ctx context.Context) (string, error) {
	about, err := d.about(ctx)
	return about.String() + " at " + d.host.Address, err
}

// knownToTakeDeltas tells whether this kind of engine was seen to load an archive
// without the layers that it has.
func (i info) knownToTakeDeltas() bool {
	v, err := parseVersion(i.version)
	if err != nil {
		return false
	}
	switch {
	case i.podman:
		return v >= version(4, 3)
	case i.containerd:
		// Docker 24 does not load compressed layers there
		// (https://github.com/moby/moby/issues/46600).
		return v >= version(25, 0)
	default:
		return v >= version(20, 10)
	}
}

// version makes the first two numbers of a version comparable.
func version(major, minor int) int { return major*1000 + minor }

func parseVersion(text string) (int, error) {
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(text, "v"), "%d.%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("version %q: want NUMBER.NUMBER", text)
	}
	return version(major, minor), nil
}

// parseID reads an image's ID, which podman gives without its algorithm.
func parseID(id string) (v1.Hash, error) {
	if !strings.Contains(id, ":") {
		id = "sha256:" + id
	}
	h, err := v1.NewHash(id)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%w: image ID %q: %w", ErrEngine, id, err)
	}
	return h, nil
}
