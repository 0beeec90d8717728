package imagespec

import (
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// untyped are types that mean nothing. Configs and layers of images
// have them since the days of Docker 1.10, and Docker takes them.
var untyped = []string{"", "application/octet-stream", "application/json", "text/html"}

// ofImages are how the types begin that images have: Docker's, OCI's, and the layers in
// EROFS that containerd reads.
var ofImages = []string{
	"application/vnd.docker.container.image.", "application/vnd.docker.image.",
	"application/vnd.oci.image.", "application/vnd.erofs.layer.",
}

// isVendors reports whether a type is one that no image has, but a vendor's artifact, as
// the specification asks artifacts to name themselves.
func isVendors(mediaType string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(mediaType, prefix) }
	return begins("application/wasm") || begins("application/vnd.") && !slices.ContainsFunc(ofImages, begins)
}

// isNoLayer reports whether a type is an artifact's, or that of a text or structured
// data where an image has a file system. What is unknown may be a layer's, for engines
// look into the layers rather than at their types.
func isNoLayer(mediaType string) bool {
	if slices.Contains(untyped, mediaType) {
		return false
	}
	return isVendors(mediaType) || strings.HasPrefix(mediaType, "text/") || strings.HasSuffix(mediaType, "+json") || strings.HasSuffix(mediaType, "+xml")
}

// artifact returns what makes a manifest an artifact's; "" if it is an image's.
func (d *document) artifact() string {
	if IsArtifactType(d.ArtifactType) {
		return fmt.Sprintf("artifact type %q", d.ArtifactType)
	}
	if d.Config != nil && isVendors(string(d.Config.MediaType)) {
		return fmt.Sprintf("config media type %q", d.Config.MediaType)
	}
	for i, l := range d.Layers {
		if isNoLayer(string(l.MediaType)) {
			return fmt.Sprintf("media type %q of layer %d", l.MediaType, i)
		}
	}
	return ""
}

// IsArtifactType reports whether the field artifactType of a manifest or of a
// descriptor means that it is no image.
func IsArtifactType(artifactType string) bool {
	return artifactType != "" && !strings.HasPrefix(artifactType, "application/vnd.oci.image.config.") && !strings.HasPrefix(artifactType, "application/vnd.docker.container.image.")
}

// CheckLayer returns why a layer cannot be stocked, by its type.
func CheckLayer(l v1.Descriptor) error {
	switch t := string(l.MediaType); {
	case strings.HasPrefix(t, "application/vnd.oci.image.layer.nondistributable."), strings.HasPrefix(t, "application/vnd.docker.image.rootfs.foreign."):
		return fmt.Errorf("%s may not be distributed (media type %q): registries do not hold it", l.Digest, t)
	case strings.HasSuffix(t, "+encrypted"):
		return fmt.Errorf("%s is encrypted (media type %q): only an engine that has its key reads it", l.Digest, t)
	}
	return nil
}
