package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// docker is an engine that speaks Docker's Engine API: Docker's own, or podman. It
// is made by [openDocker], and safe for concurrent use.
type docker struct {
	host   Host
	client *http.Client
	base   string // of the URLs, with the API's version
	podman bool
	libpod string // of the URLs of podman's own API
	// noManifests: with containerd's store it does not report whether an image is whole.
	noManifests bool

	mu   sync.Mutex
	info *info // nil until it is needed
}

// info is what an engine reports of itself.
type info struct {
	id      string
	version string // such as 20.10.24+dfsg1
	podman  bool
	// containerd: images are kept by containerd, which knows layers by the digests
	// of their blobs. Docker calls it the containerd image store.
	containerd bool
	driver     string // of layers, such as overlay2
}

// openDocker connects to what listens at a host, with the errors of [Open].
func openDocker(ctx context.Context, host Host) (*docker, error) {
	client, base, err := host.client()
	if err != nil {
		return nil, err
	}
	d := &docker{host: host, client: client, base: base}
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
	d.noManifests = number < saysManifests
	return d, nil
}

// saysManifests is the version of the API from which on the manifests of an image
// are listed, and which of them are whole.
var saysManifests = version(1, 48)

// about asks the engine about itself, once. It is not cheap: Docker runs other
// programs for their versions, some 100 ms in all, so what needs no more than a
// look at an image does without.
func (d *docker) about(ctx context.Context) (info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.info != nil {
		return *d.info, nil
	}
	var answer struct {
		ID            string
		ServerVersion string
		Driver        string
		DriverStatus  [][2]string
	}
	if err := d.get(ctx, "/info", &answer); err != nil {
		return info{}, err
	}
	i := info{id: answer.ID, version: answer.ServerVersion, podman: d.podman, driver: answer.Driver}
	i.containerd = slices.Contains(answer.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
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
// does not say.
func (d *docker) ID(ctx context.Context) (string, error) {
	about, err := d.about(ctx)
	if errors.Is(err, ErrEngine) { // an authorization plugin may deny it
		return d.host.Address, nil
	}
	return about.id, err
}

// Describe implements [Describer].
func (d *docker) Describe(ctx context.Context) (string, error) {
	about, err := d.about(ctx)
	return about.String() + " at " + d.host.Address, err
}

// knownToTakeDeltas reports whether this kind of engine was seen to load an archive
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

// imageJSON is what is used of GET /images/{name}/json.
type imageJSON struct {
	ID       string `json:"Id"`
	RepoTags []string
	RootFS   struct{ Layers []v1.Hash }
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
func (d *docker) inspect(ctx context.Context, image string, found *imageJSON) error {
	// An engine that does not know "manifests" leaves them out.
	return d.call(ctx, http.MethodGet, "/images/"+image+"/json", url.Values{"manifests": {"1"}}, nil, found)
}

// Find implements [Engine].
func (d *docker) Find(ctx context.Context, reference string) (id v1.Hash, state State, err error) {
	var found imageJSON
	err = d.inspect(ctx, reference, &found)
	// An engine fails at an image that it has lost a part of: there is none to use.
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusInternalServerError) {
		return v1.Hash{}, Usable, nil
	}
	if err != nil {
		return v1.Hash{}, Usable, err
	}
	if id, err = parseID(found.ID); err != nil {
		return v1.Hash{}, Usable, err
	}
	if d.noManifests {
		return id, Unknown, nil
	}
	return id, found.state(), nil
}

// state returns what the engine reports of the image.
func (i *imageJSON) state() State {
	switch {
	case i.isIncomplete():
		return Incomplete
	case len(i.Manifests) > 0 && !i.isWhole():
		return Unknown
	}
	return Usable
}

// isIncomplete reports whether blobs of an image in containerd's store are missing: that of
// a broken archive is kept all the same (https://github.com/moby/moby/issues/48293). Other
// stores have no such images, and report nothing of it.
func (i *imageJSON) isIncomplete() bool {
	for _, m := range i.Manifests {
		if m.ID == i.ID && !m.Available {
			return true
		}
	}
	return false
}

// isWhole reports whether the engine itself reports that all of the image can be used. That
// nothing of it is unpacked may also mean that there is nothing in its layers: file systems
// differ in whether an empty directory takes space. Nor can an image that is listed without
// layers be believed to have none: those of a type that the engine does not know are not
// listed, and no container can be created of it.
func (i *imageJSON) isWhole() bool {
	for _, m := range i.Manifests {
		if m.ID == i.ID && m.Available && m.ImageData != nil && m.ImageData.Size.Unpacked > 0 {
			return true
		}
	}
	return false
}

// inspectAtOnce is how many images are asked about at a time.
const inspectAtOnce = 8

// Has implements [Engine]. It asks for every local image: their layers are listed
// nowhere else.
func (d *docker) Has(ctx context.Context, image *tarball.Image) (map[v1.Hash]bool, error) {
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
			case found.isIncomplete(): // it lists what is not there
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
func (d *docker) Name(ctx context.Context, name string, id v1.Hash) error {
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

// Remove implements [Remover]. Without "force" the engine itself refuses to remove the last
// reference of an image that a container uses.
func (d *docker) Remove(ctx context.Context, reference string) error {
	if _, err := v1.NewHash(reference); err == nil {
		var found imageJSON
		err := d.inspect(ctx, reference, &found)
		if isStatus(err, http.StatusNotFound) || err == nil && len(found.RepoTags) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	err := d.Name(ctx, reference, v1.Hash{})
	if isStatus(err, http.StatusConflict) {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}

// Load implements [Engine].
func (d *docker) Load(ctx context.Context, archive io.Reader, size int64) error {
	return d.load(ctx, archive, size, nil)
}

// load is Load with a function that is called with how much is unpacked; nil: none.
func (d *docker) load(ctx context.Context, archive io.Reader, size int64, unpacked func(int64)) error {
	// Quiet leaves out the progress, not what failed.
	quiet := map[bool]string{false: "0", true: "1"}[unpacked == nil]
	resp, err := d.do(ctx, http.MethodPost, "/images/load", url.Values{"quiet": {quiet}}, archive, size, "application/x-tar")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readStream(ctx, resp.Body, unpacked)
}

// reporting is an engine that reports its unpacking, as far as Docker's API has that:
// the classic store reports how much of each layer it has read.
type reporting struct {
	*docker
	unpacked func(int64)
}

// Reporting implements [Reporter].
func (d *docker) Reporting(unpacked func(int64)) Engine { return reporting{d, unpacked} }

func (r reporting) Load(ctx context.Context, archive io.Reader, size int64) error {
	return r.load(ctx, archive, size, r.unpacked)
}

// NamesEarly implements [EarlyNamer]. With containerd's store the image has its name before
// it is unpacked
// (https://github.com/moby/moby/blob/v28.5.2/daemon/containerd/image_exporter.go);
// the classic store and podman give it last.
func (d *docker) NamesEarly(ctx context.Context) bool {
	about, err := d.about(ctx)
	return err == nil && about.containerd
}

// ReadsZstd implements [ZstdReader]. Docker's classic store unpacks zstd since 23.0, whatever
// the media type is (https://docs.docker.com/engine/release-notes/23.0/); with containerd's
// store that one unpacks. podman does in all versions that are supported.
func (d *docker) ReadsZstd(ctx context.Context, mediaType types.MediaType) error {
	about, err := d.about(ctx)
	if err != nil || about.podman {
		return nil
	}
	if about.containerd {
		return containerdReadsZstd(d.containerdVersion(ctx), mediaType)
	}
	if v, err := parseVersion(about.version); err == nil && v < version(23, 0) {
		return fmt.Errorf("%w: Docker %s does not unpack layers in zstd, Docker 23.0 and later do: update the engine, or build the image with gzip", ErrUnsupported, about.version)
	}
	return nil
}

// containerdVersion returns the version of the containerd that Docker uses, "" if it
// does not report it.
func (d *docker) containerdVersion(ctx context.Context) string {
	var answer struct {
		Components []struct{ Name, Version string }
	}
	if d.get(ctx, "/version", &answer) != nil {
		return ""
	}
	for _, c := range answer.Components {
		if c.Name == "containerd" {
			return c.Version
		}
	}
	return ""
}

// Pulls implements [Puller]. Measured (BENCHMARKS.md): with containerd's store, and
// with podman, pulling is faster than loading, since layers are unpacked while others
// come; with Docker's classic store it is slower.
func (d *docker) Pulls(ctx context.Context) bool {
	// Elsewhere an engine on a socket is in a virtual machine.
	if runtime.GOOS != "linux" || !strings.HasPrefix(d.host.Address, "unix:") {
		return false
	}
	about, err := d.about(ctx)
	return err == nil && (about.podman || about.containerd)
}

// Pull implements [Puller]. Docker connects to 127.0.0.0/8 without TLS by default;
// podman needs an option for that, which its Docker-compatible API does not have.
func (d *docker) Pull(ctx context.Context, reference string) error {
	path := "/images/create"
	i := strings.LastIndex(reference, ":")
	query := url.Values{"fromImage": {reference[:i]}, "tag": {reference[i+1:]}}
	if d.podman {
		path, query = libpodPath+"/images/pull", url.Values{"reference": {reference}, "tlsVerify": {"false"}}
	}
	resp, err := d.do(ctx, http.MethodPost, path, query, nil, 0, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readStream(ctx, resp.Body, nil)
}

// containerRequest asks for the container that verifies an image. It is never
// started.
type containerRequest struct {
	Image           string
	Cmd             []string
	Entrypoint      []string
	NetworkDisabled bool
	Labels          map[string]string
	HostConfig      struct{ NetworkMode string }
}

// verifyLabel is on the container that verifies an image, for people who see it.
const verifyLabel = "io.github.dockercache.proof"

// verifyTimeout is how long the engine may still take to create the container, or to
// remove it, when ctx has ended.
const verifyTimeout = 30 * time.Second

// Verify implements [Engine].
//
// Docker's classic store answers no question about an image, as [docker.Find] has
// just asked, without looking up the chain of its layers; with containerd's, Docker
// 28 and later report whether it is whole and unpacked. With Docker 25 to 27 and that
// store, with podman, and where the engine reports nothing of itself, a container is
// created, which needs all of that, and removed; nothing runs. That is the last
// resort since it makes the engine wait for the disk: right after a load of
// 1 GiB that took 1.1 s on ext4.
func (d *docker) Verify(ctx context.Context, id v1.Hash) error {
	if about, err := d.about(ctx); err == nil && !about.podman {
		var found imageJSON
		if err := d.inspect(ctx, id.String(), &found); err != nil {
			return err
		}
		switch {
		case found.isIncomplete():
			return fmt.Errorf("%w: image %s is incomplete", ErrEngine, id)
		case !about.containerd || found.isWhole():
			return nil
		}
	}
	return d.verifyByContainer(ctx, id)
}

// VerifiesLayers implements [LayerVerifier]. Docker's classic store unpacks a layer only
// under the diff ID that it has, and compares that with the config's
// (https://github.com/moby/moby/blob/v20.10.24/image/tarexport/load.go).
func (d *docker) VerifiesLayers(ctx context.Context) bool {
	about, err := d.about(ctx)
	return err == nil && !about.podman && !about.containerd
}

func (d *docker) verifyByContainer(ctx context.Context, id v1.Hash) error {
	request := containerRequest{
		Image: id.String(), Cmd: []string{"never-started"}, Entrypoint: []string{}, NetworkDisabled: true,
		Labels: map[string]string{verifyLabel: "the image can be used"},
	}
	request.HostConfig.NetworkMode = "none"
	var created struct {
		ID string `json:"Id"`
	}
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	// An engine creates the container also when the request has ended,
	// and only the answer says what to remove.
	ctx, cancel := detach(ctx, verifyTimeout)
	defer cancel()
	if err := d.call(ctx, http.MethodPost, "/containers/create", nil, request, &created); err != nil {
		return err
	}
	return d.call(ctx, http.MethodDelete, "/containers/"+created.ID, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
}

// detach returns a context that ends so much later than ctx.
func detach(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(more):
		case <-longer.Done():
		}
		cancel(wait.Err(ctx))
	})
	return longer, func() { stop(); cancel(context.Canceled) }
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
