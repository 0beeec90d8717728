package enginetest

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// loadClassic loads what manifest.json names, as Docker's classic store does: a
// layer's file is opened only when its chain is not there
// (https://github.com/moby/moby/blob/v28.5.2/image/tarexport/load.go).
func (s *store) loadClassic(files map[string][]byte) (loaded []named, err error) {
	raw, err := open(files, "manifest.json")
	if err != nil {
		return nil, err
	}
	var entries []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		config, err := open(files, e.Config)
		if err != nil {
			return nil, err
		}
		img, err := s.unpackAll(config, e.Layers, func(path string) ([]byte, error) { return open(files, path) })
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, named{img, e.RepoTags, nil})
	}
	return loaded, nil
}

// loadPodman loads what index.json names, for podman reads that when there is an
// oci-layout; layers are there by their chains too.
func (s *store) loadPodman(files map[string][]byte) (loaded []named, err error) {
	index, err := readIndex(files)
	if err != nil {
		return nil, err
	}
	for _, d := range index {
		_, manifest, err := readManifest(d, func(h v1.Hash) ([]byte, error) { return open(files, blobPath(h)) })
		if err != nil {
			return nil, err
		}
		config, err := open(files, blobPath(manifest.Config.Digest))
		if err != nil {
			return nil, err
		}
		if hashOf(config) != manifest.Config.Digest {
			return nil, fmt.Errorf("the config does not match %s", manifest.Config.Digest)
		}
		var layers []string
		for _, l := range manifest.Layers {
			layers = append(layers, blobPath(l.Digest))
		}
		img, err := s.unpackAll(config, layers, func(path string) ([]byte, error) { return open(files, path) })
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, named{img, []string{d.Annotations[containerdName]}, nil})
	}
	return loaded, nil
}

// unpackAll unpacks the layers of an image whose chains are not there.
func (s *store) unpackAll(config []byte, layers []string, open func(string) ([]byte, error)) (*stored, error) {
	var parsed v1.ConfigFile
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, err
	}
	diffIDs := parsed.RootFS.DiffIDs
	if len(diffIDs) != len(layers) {
		return nil, fmt.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", len(layers), len(diffIDs))
	}
	for i, path := range layers {
		chain := chainOf(diffIDs[:i+1])
		if _, ok := s.chains[chain]; ok {
			continue
		}
		blob, err := open(path)
		if err != nil {
			return nil, err
		}
		l, diffID, err := unpack(blob)
		if err != nil {
			return nil, fmt.Errorf("ApplyLayer exit status 1 stdout:  stderr: %w", err)
		}
		if diffID != diffIDs[i] {
			return nil, fmt.Errorf("invalid diffID for layer %d: expected %q, got %q", i, diffIDs[i], diffID)
		}
		s.chains[chain] = l
		s.unpackedNow = append(s.unpackedNow, len(blob))
	}
	return &stored{id: hashOf(config), diffIDs: diffIDs}, nil
}
