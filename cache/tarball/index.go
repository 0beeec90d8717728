package tarball

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations of the manifest's descriptor in index.json. containerd reads the
// first, everybody else the second
// (https://github.com/opencontainers/image-spec/blob/main/annotations.md).
const (
	annotationContainerdName = "io.containerd.image.name"
	annotationRefName        = "org.opencontainers.image.ref.name"
)

// Annotations of the index that carry the [Provenance].
const (
	annotationSource = "io.github.dockercache.source"
	annotationBranch = "io.github.dockercache.branch"
	annotationRun    = "io.github.dockercache.run"
	annotationTry    = "io.github.dockercache.run-attempt"
)

// Provenance says where a tarball's image came from. It is recorded in the
// annotations of index.json, never in the blobs: the digests stay the
// registry's. Empty fields are not recorded.
type Provenance struct {
	// Source is the reference that the image was resolved at, which may be in
	// a mirror.
	Source string
	// Branch is the branch that the image was built from.
	Branch string
	// Run is the build run that made it. A tarball of an older run never replaces
	// one of a newer run.
	Run Run
}

func (p Provenance) annotations() map[string]string {
	out := map[string]string{}
	for key, value := range map[string]string{annotationSource: p.Source, annotationBranch: p.Branch} {
		if value != "" {
			out[key] = value
		}
	}
	for key, value := range map[string]int64{annotationRun: p.Run.ID, annotationTry: p.Run.Attempt} {
		if value != 0 {
			out[key] = strconv.FormatInt(value, 10)
		}
	}
	return out
}

// indexJSON is index.json. go-containerregistry's IndexManifest would do but
// for one thing: it writes "platform" and others in a form that depends on its
// version, and the tarball's bytes must not.
type indexJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	Manifests     []descriptorJSON  `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type descriptorJSON struct {
	MediaType   types.MediaType   `json:"mediaType"`
	Digest      v1.Hash           `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// newIndex has exactly one descriptor: with two, some loaders ask which.
func newIndex(img *Image, p Provenance) indexJSON {
	return indexJSON{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []descriptorJSON{{
			MediaType: img.parsed.MediaType,
			Digest:    img.digest,
			Size:      int64(len(img.manifest)),
			Annotations: map[string]string{
				annotationContainerdName: img.reference,
				annotationRefName:        img.reference,
			},
		}},
		Annotations: p.annotations(),
	}
}

// parseIndex reads an index.json back: its only manifest and the provenance.
func parseIndex(raw []byte) (descriptorJSON, Provenance, error) {
	var index indexJSON
	if err := json.Unmarshal(raw, &index); err != nil {
		return descriptorJSON{}, Provenance{}, fmt.Errorf("index.json: %w", err)
	}
	if n := len(index.Manifests); n != 1 {
		return descriptorJSON{}, Provenance{}, fmt.Errorf("index.json: %d manifests, want 1", n)
	}
	p := Provenance{Source: index.Annotations[annotationSource], Branch: index.Annotations[annotationBranch]}
	for key, value := range map[string]*int64{annotationRun: &p.Run.ID, annotationTry: &p.Run.Attempt} {
		if text, ok := index.Annotations[key]; ok {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return descriptorJSON{}, Provenance{}, fmt.Errorf("index.json: annotation %s: %w", key, err)
			}
			*value = n
		}
	}
	return index.Manifests[0], p, nil
}

// dockerManifest is one element of manifest.json, Docker's own list.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func newDockerManifest(img *Image) []dockerManifest {
	m := dockerManifest{
		Config:   blobPath(img.parsed.Config.Digest),
		RepoTags: []string{img.reference},
		Layers:   []string{},
	}
	for _, l := range img.parsed.Layers {
		m.Layers = append(m.Layers, blobPath(l.Digest)) // one per layer, repeats included
	}
	return []dockerManifest{m}
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// A Run is the build run that an image came from. The zero value is no known
// run.
type Run struct {
	// ID grows from run to run, as those of GitHub Actions do.
	ID int64 `json:"run,omitempty"`
	// Attempt counts from 1 how often the run was started.
	Attempt int64 `json:"attempt,omitempty"`
}

// NewerThan reports whether r began after other; neither is newer when one of them
// is not known.
func (r Run) NewerThan(other Run) bool {
	if r.ID == 0 || other.ID == 0 {
		return false
	}
	return cmp.Or(cmp.Compare(r.ID, other.ID), cmp.Compare(r.Attempt, other.Attempt)) > 0
}
