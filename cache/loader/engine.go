package loader

import (
	"context"
	"errors"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// An Engine is a container engine that images can be loaded into. Its methods are
// called concurrently.
type Engine interface {
	// ID tells the engines that a machine can reach apart.
	ID(ctx context.Context) (string, error)
	// Find returns the identity of the image that has the reference: the digest of
	// its config, or of its manifest, as the engine has it; zero when there is
	// none. It is not usable when the engine itself says that parts of it are
	// missing.
	Find(ctx context.Context, reference string) (id v1.Hash, usable bool, err error)
	// Has returns which layers of an image need not be sent, by the digests in its
	// manifest. It may be wrong: see [Load].
	Has(ctx context.Context, image *cache.Image) (map[v1.Hash]bool, error)
	// Load sends an archive of size bytes. Nil means that the engine has said
	// nothing of a failure.
	Load(ctx context.Context, archive io.Reader, size int64) error
	// Prove proves that the image with this identity can be used.
	Prove(ctx context.Context, id v1.Hash) error
	// Name gives the reference to the image with this identity; a zero one takes it
	// away from what has it.
	Name(ctx context.Context, reference string, id v1.Hash) error
}

// A LayerProver is an [Engine] that may itself find out that a layer in an archive is
// not what the image's config says, before anything has the reference. Then the digests
// are proven while it unpacks, and not before it has the bytes: where all processors are
// at work that is 7 % of a load.
type LayerProver interface {
	Engine
	ProvesLayers(ctx context.Context) bool
}

var (
	// ErrEngine is wrapped by what an engine answers when it refuses or fails.
	ErrEngine = errors.New("engine failed")
	// ErrUnreachable is wrapped when no engine answers.
	ErrUnreachable = errors.New("engine unreachable")
	// ErrUnproven is wrapped when an engine reports that it has loaded an image,
	// and has not.
	ErrUnproven = errors.New("the engine has not what it says that it loaded")
)

// Open connects to what is at a host: [ConnectContainerd] for containerd:///PATH,
// [Connect] for the rest.
func Open(ctx context.Context, host Host) (Engine, error) {
	if strings.HasPrefix(host.Address, containerdScheme+":") {
		return ConnectContainerd(ctx, host.Address)
	}
	return Connect(ctx, host)
}
