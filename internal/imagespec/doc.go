// Package imagespec reads manifests, indexes and configs of container images as far as
// they are needed, and decides what an image is. It is stricter than a JSON decoder
// where two readers could understand a document differently, and ignores what it does
// not need.
//
// Sources: the OCI image specification
// (https://github.com/opencontainers/image-spec/blob/main/manifest.md and image-index.md),
// its advice on ambiguous documents
// (https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m),
// and for the media types that engines take though the specification does not list
// them, supportedMediaTypes in moby's distribution/registry.go and IsLayerType in
// containerd's core/images/mediatypes.go.
package imagespec
