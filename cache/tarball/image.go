package tarball

import (
	"fmt"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/internal/imagespec"
)

// Limits of what is held in memory and read back by [Read].
const (
	// maxManifest is what the distribution registry accepts: 4 MiB.
	maxManifest = 4 << 20
	// maxConfig: configs grow with the history; the largest seen have some
	// 100 KiB.
	maxConfig = 16 << 20
)

// An Image is what identifies a container image: its manifest and config, byte
// by byte as a registry served them, the indexes that they were found through, and the
// reference that it is known by once loaded. It is immutable and safe for concurrent use.
type Image struct {
	reference string
	manifest  []byte
	config    []byte
	digest    v1.Hash
	parsed    v1.Manifest
	diffIDs   []v1.Hash
	platform  v1.Platform

	indexes      [][]byte // that it was found through, outermost first
	indexDigests []v1.Hash
}

// NewImage checks a manifest and its config and returns the image.
//
// ref becomes the name that an engine gives the loaded image. It needs a tag
// and must have no digest; a short name is completed as Docker does
// ("debian:12" -> "docker.io/library/debian:12").
//
// indexes are those that the manifest was found through, as served: outermost first,
// each lists the next one, the last one the manifest. At most 4, of 4 MiB each.
//
// The error wraps [ErrInvalidImage]: a reference that names nothing loadable; a
// manifest that is not JSON, has schema version 1, is an index or an artifact's, or could
// be read as something else too; a digest other than sha256; more than 500 layers; a
// config that is not the one that the manifest declares, or is not an image's; layers that
// may not be distributed, are encrypted, or do not match the config's list; an index that
// is none, or does not list what it should. Of the config no more is read than its platform
// and its list of layers.
func NewImage(ref string, manifest, config []byte, indexes ...[]byte) (*Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("%w: reference %q: %w", ErrInvalidImage, ref, err)
	}
	if _, ok := named.(reference.Tagged); !ok {
		return nil, fmt.Errorf("%w: reference %q has no tag: an engine would load an image without a name", ErrInvalidImage, ref)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, fmt.Errorf("%w: reference %q has a digest: an engine cannot give that name", ErrInvalidImage, ref)
	}
	img := &Image{
		reference: named.String(),
		manifest:  slices.Clone(manifest),
		config:    slices.Clone(config),
		digest:    imagespec.DigestOf(manifest),
	}
	if err := img.parse(); err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrInvalidImage, img.digest, err)
	}
	if err := img.addIndexes(indexes); err != nil {
		return nil, err
	}
	return img, nil
}

func (i *Image) parse() error {
	if len(i.manifest) > maxManifest {
		return fmt.Errorf("%d bytes, more than %d", len(i.manifest), maxManifest)
	}
	m, err := imagespec.Manifest(i.manifest)
	if err != nil {
		return err
	}
	if m.MediaType == "" {
		m.MediaType = types.OCIManifestSchema1 // only OCI lets it be left out
	}
	i.parsed = *m
	if err := i.checkConfig(); err != nil {
		return err
	}
	sizes := map[v1.Hash]int64{}
	for n, l := range m.Layers {
		if err := imagespec.CheckLayer(l); err != nil {
			return fmt.Errorf("layer %d: %w", n, err)
		}
		if l.Digest == m.Config.Digest || l.Digest == i.digest {
			return fmt.Errorf("layer %d: %s is also the config or the manifest: two entries of one name", n, l.Digest)
		}
		if size, ok := sizes[l.Digest]; ok && size != l.Size {
			return fmt.Errorf("layer %d: %s is declared with %d and with %d bytes", n, l.Digest, size, l.Size)
		}
		sizes[l.Digest] = l.Size
	}
	return nil
}

// checkConfig checks that the config is the one that the manifest declares, and that
// the two agree on the number of layers: an engine notices that only after it
// has read everything.
func (i *Image) checkConfig() error {
	want := i.parsed.Config
	if len(i.config) > maxConfig {
		return fmt.Errorf("config: %d bytes, more than %d", len(i.config), maxConfig)
	}
	if got := imagespec.DigestOf(i.config); got != want.Digest {
		return fmt.Errorf("config: its bytes have the digest %s, declared is %s", got, want.Digest)
	}
	if int64(len(i.config)) != want.Size {
		return fmt.Errorf("config: %d bytes, declared are %d", len(i.config), want.Size)
	}
	cfg, err := imagespec.Config(i.config)
	if err != nil {
		return fmt.Errorf("config %s: %w", want.Digest, err)
	}
	i.diffIDs, i.platform = cfg.DiffIDs, cfg.Platform
	if have, need := len(i.diffIDs), len(i.parsed.Layers); have != need {
		return fmt.Errorf("config %s lists %d layers, the manifest %d", want.Digest, have, need)
	}
	return nil
}

// Reference returns the complete name that the image has once loaded.
func (i *Image) Reference() string { return i.reference }

// Digest returns the digest of the manifest: the image's identity.
func (i *Image) Digest() v1.Hash { return i.digest }

// MediaType returns the manifest's media type; OCI's when it does not say.
func (i *Image) MediaType() types.MediaType { return i.parsed.MediaType }

// Manifest returns a copy of the manifest as served.
func (i *Image) Manifest() []byte { return slices.Clone(i.manifest) }

// Config returns a copy of the config as served.
func (i *Image) Config() []byte { return slices.Clone(i.config) }

// ConfigDigest returns the digest of the config, which Docker's classic store and
// podman call the image's ID.
func (i *Image) ConfigDigest() v1.Hash { return i.parsed.Config.Digest }

// DiffIDs returns the digests of the layers unpacked, as the config lists them, in
// the order of [Image.Layers].
func (i *Image) DiffIDs() []v1.Hash { return slices.Clone(i.diffIDs) }

// Platform returns what the config states of the platform; fields that it does not
// state are empty.
func (i *Image) Platform() v1.Platform { return i.platform }

// Layers returns the descriptors of the layers in the manifest's order, bottom
// first. The same digest may occur more than once.
func (i *Image) Layers() []v1.Descriptor { return slices.Clone(i.parsed.Layers) }

// layer returns the descriptor of a layer, if there is one.
func (i *Image) layer(digest v1.Hash) (v1.Descriptor, bool) {
	for _, d := range i.parsed.Layers {
		if d.Digest == digest {
			return d, true
		}
	}
	return v1.Descriptor{}, false
}
