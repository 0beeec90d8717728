package loader

import (
	"context"
	"errors"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/tarball"
)

// An Engine is a container engine that images can be loaded into. [Open] returns one
// for Docker, podman and containerd. It must be safe for concurrent use.
//
// What an engine can do more are optional interfaces: [Puller], [LayerVerifier],
// [EarlyNamer], [ZstdReader], [Reporter], [Describer], [Remover], [Pinner],
// [Adviser].
type Engine interface {
	// ID distinguishes the engines that a machine can reach.
	ID(ctx context.Context) (string, error)
	// Find returns the identity of the image that has the reference: the digest of its
	// config, or of its manifest, as the engine names images; zero when there is none.
	// state is what the engine knows of it.
	Find(ctx context.Context, reference string) (id v1.Hash, state State, err error)
	// Has returns which layers of an image need not be sent, by the digests in its
	// manifest. It may be wrong: see [Load].
	Has(ctx context.Context, image *tarball.Image) (map[v1.Hash]bool, error)
	// Load sends an archive of size bytes. Nil means that the engine has reported no
	// failure.
	Load(ctx context.Context, archive io.Reader, size int64) error
	// Verify verifies that the image with this identity can be used.
	Verify(ctx context.Context, id v1.Hash) error
	// Name gives the reference to the image with this identity; a zero one removes
	// the reference.
	Name(ctx context.Context, reference string, id v1.Hash) error
}

// A State is what an engine knows of an image without further work.
type State int

const (
	// Usable: the image is whole, or this engine keeps no others.
	Usable State = iota
	// Incomplete: the engine itself reports that parts of it are missing.
	Incomplete
	// Unknown: the engine does not say. [Load] calls [Engine.Verify] to find out, but for
	// an image that is named by its config: stores that do so keep no incomplete ones.
	Unknown
)

// A Puller is an [Engine] that can also pull, from a registry that [Load] serves on
// loopback. It does not ask for what it already has; that is its own doing,
// where an archive without it relies on what no engine documents.
type Puller interface {
	Engine
	// Pulls reports whether pulling is the better way with this engine, and works on
	// this machine.
	Pulls(ctx context.Context) bool
	// Pull makes the engine pull HOST:PORT/REPOSITORY:TAG, without TLS, and keep it
	// under that name.
	Pull(ctx context.Context, reference string) error
}

// A LayerVerifier is an [Engine] that may itself find out that a layer in an archive is
// not what the image's config says, before anything has the reference. Then the digests
// are verified while it unpacks, and not before it has the bytes: where all processors are
// at work that is 7 % of a load.
type LayerVerifier interface {
	Engine
	VerifiesLayers(ctx context.Context) bool
}

// An EarlyNamer is an [Engine] that may give an image in an archive its reference before all
// of it is there and unpacked. It is sent archives under a name that no other image has, and
// the image gets its reference when it was verified: so the reference never names what
// cannot be used, and what had it before keeps it, with its layers, until then.
type EarlyNamer interface {
	Engine
	NamesEarly(ctx context.Context) bool
}

// A ZstdReader is an [Engine] of which some versions do not unpack layers in zstd.
type ZstdReader interface {
	Engine
	// ReadsZstd returns nil if the engine unpacks layers in zstd that have this media
	// type in the manifest, or if that is not known; else an error that wraps
	// [ErrUnsupported] and names the versions that do.
	ReadsZstd(ctx context.Context, mediaType types.MediaType) error
}

// A Reporter is an [Engine] that reports how far it has unpacked what it was sent.
type Reporter interface {
	Engine
	// Reporting returns the engine with a function that is called, by one goroutine at a
	// time, while a load goes on: with how many bytes of the archive's layers are
	// unpacked, of all that are not there yet.
	Reporting(unpacked func(done int64)) Engine
}

// A Describer is an [Engine] that names itself for people: product, version, store,
// address.
type Describer interface {
	Describe(ctx context.Context) (string, error)
}

// A Remover is an [Engine] that can remove images.
type Remover interface {
	Engine
	// Remove removes the reference, and the image with its last one. Nil is also returned
	// when nothing has the reference. The error wraps [ErrInUse] when a container uses the
	// image, be it running or not; then nothing is removed. An image that has another
	// reference may lose this one all the same: the container keeps it.
	//
	// In place of a reference it may be the identity that [Engine.Find] has returned: then
	// the image is removed if it has no reference, as one whose reference was given to another.
	Remove(ctx context.Context, reference string) error
}

// A Pinner is an [Engine] in which an image can be marked as one that is not to be removed
// by those who make room, such as Kubernetes' kubelet.
type Pinner interface {
	Engine
	// Pin marks the image under this reference. A load removes the mark.
	Pin(ctx context.Context, reference string) error
}

// An Adviser is an [Engine] that may know why loads take longer than they need to.
type Adviser interface {
	Engine
	// Advice returns what the owner of the machine can do about it, a sentence each for
	// people; none if nothing is known. It may be as slow as 100 ms.
	Advice(ctx context.Context) []string
}

var (
	// ErrInUse is wrapped when an image is not removed, since a container uses it.
	ErrInUse = errors.New("a container uses the image")
	// ErrEngine is wrapped by what an engine answers when it refuses or fails.
	ErrEngine = errors.New("engine failed")
	// ErrUnreachable is wrapped when no engine answers.
	ErrUnreachable = errors.New("engine unreachable")
	// ErrNotLoaded is wrapped when an engine reports that it has loaded an image,
	// and does not have it.
	ErrNotLoaded = errors.New("engine reported success but does not have the image")
	// ErrUnsupported is wrapped when this version of the engine cannot unpack a layer of
	// the image. Nothing was sent.
	ErrUnsupported = errors.New("the engine cannot read the image")
)

// Open connects to the engine at a host: containerd for containerd:///PATH, else
// Docker or podman. The error wraps [ErrInvalidHost], [ErrUnreachable], or [ErrEngine]
// when what answers is no engine.
func Open(ctx context.Context, host Host) (Engine, error) {
	if strings.HasPrefix(host.Address, containerdScheme+":") {
		return openContainerd(ctx, host.Address)
	}
	return openDocker(ctx, host)
}

// Product returns which engine one of this package is, "docker", "podman" or "containerd", without
// asking it; "" for another.
func Product(e Engine) string {
	switch e := e.(type) {
	case *containerd:
		return "containerd"
	case *docker:
		if e.podman {
			return "podman"
		}
		return "docker"
	}
	return ""
}

// chainHas returns the layers of an image that a store has which knows layers by
// their chains, as Docker's classic store and podman's do: a layer is there only
// on top of all that are below it. rootFS are the diff IDs of the local images.
func chainHas(image *tarball.Image, rootFS [][]v1.Hash) map[v1.Hash]bool {
	want := image.DiffIDs()
	prefix := 0
	for _, have := range rootFS {
		n := 0
		for n < min(len(have), len(want)) && have[n] == want[n] {
			n++
		}
		prefix = max(prefix, n)
	}
	has := map[v1.Hash]bool{}
	for i, l := range image.Layers() {
		// The same layer further up is another chain, and its blob is needed again.
		has[l.Digest] = i < prefix
	}
	return has
}

// blobHas returns the layers of an image that a store has which knows them by
// digest, as containerd's does. An engine lists only the diff IDs of its images,
// so it is a guess that these came from the same blobs.
func blobHas(image *tarball.Image, rootFS [][]v1.Hash) map[v1.Hash]bool {
	local := map[v1.Hash]bool{}
	for _, have := range rootFS {
		for _, id := range have {
			local[id] = true
		}
	}
	has := map[v1.Hash]bool{}
	diffIDs := image.DiffIDs()
	for i, l := range image.Layers() {
		has[l.Digest] = local[diffIDs[i]]
	}
	return has
}
