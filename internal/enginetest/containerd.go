package enginetest

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// containerdName is the annotation by which containerd's importer and podman name
// an image.
const containerdName = "io.containerd.image.name"

func blobPath(h v1.Hash) string { return "blobs/sha256/" + h.Hex }

// readIndex returns the manifests that an OCI layout names.
func readIndex(files map[string][]byte) ([]v1.Descriptor, error) {
	if _, err := open(files, "oci-layout"); err != nil {
		return nil, err
	}
	raw, err := open(files, "index.json")
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	return index.Manifests, nil
}

func readManifest(d v1.Descriptor, open func(v1.Hash) ([]byte, error)) ([]byte, *v1.Manifest, error) {
	raw, err := open(d.Digest)
	if err != nil {
		return nil, nil, err
	}
	if hashOf(raw) != d.Digest {
		return nil, nil, fmt.Errorf("the manifest does not match %s", d.Digest)
	}
	var manifest v1.Manifest
	return raw, &manifest, json.Unmarshal(raw, &manifest)
}

// blob returns a blob of the store.
func (s *store) blob(h v1.Hash) ([]byte, error) {
	content, ok := s.blobs[h]
	if !ok {
		return nil, fmt.Errorf("content digest %s: not found", h)
	}
	return content, nil
}

// loadContainerd loads what index.json names. Blobs are kept by the digest that
// they have, whatever they are called, and found among all that the store has. An
// image without some is kept nevertheless.
func (s *store) loadContainerd(files map[string][]byte) (loaded []named, err error) {
	index, err := readIndex(files)
	if err != nil {
		return nil, err
	}
	for name, content := range files {
		if strings.HasPrefix(name, "blobs/") {
			s.blobs[hashOf(content)] = content
		}
	}
	for _, d := range index {
		_, manifest, err := readManifest(d, s.blob)
		if err != nil {
			return nil, err
		}
		config, err := s.blob(manifest.Config.Digest)
		if err != nil {
			return nil, err
		}
		var parsed v1.ConfigFile
		if err := json.Unmarshal(config, &parsed); err != nil {
			return nil, err
		}
		img := &stored{id: d.Digest, diffIDs: parsed.RootFS.DiffIDs, blobs: []v1.Hash{d.Digest, manifest.Config.Digest}}
		for _, l := range manifest.Layers {
			img.blobs = append(img.blobs, l.Digest)
		}
		loaded = append(loaded, named{img, []string{d.Annotations[containerdName]}, s.unpackBlobs(img)})
	}
	return loaded, nil
}

// unpackBlobs unpacks the layers of an image.
func (s *store) unpackBlobs(img *stored) error {
	layers := img.blobs[2:]
	if len(img.diffIDs) != len(layers) {
		return fmt.Errorf("mismatched image rootfs and manifest layers")
	}
	for i, h := range layers {
		chain := chainOf(img.diffIDs[:i+1])
		if _, ok := s.chains[chain]; ok {
			continue
		}
		if s.diesFirst {
			return failure("killed")
		}
		blob, err := s.blob(h)
		if err != nil {
			return err
		}
		l, diffID, err := unpack(blob)
		if err != nil {
			return fmt.Errorf("failed to extract layer %s: %w", img.diffIDs[i], err)
		}
		if diffID != img.diffIDs[i] {
			return fmt.Errorf("wrong diff id calculated on extraction %q, expected %q", diffID, img.diffIDs[i])
		}
		s.chains[chain] = l
	}
	return nil
}
