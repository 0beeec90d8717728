package registrytest

import (
	"bytes"
	"errors"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push stores an image as REPOSITORY:TAG and returns its reference, with the
// server's host.
func (s *Server) Push(path string, image v1.Image) (ref string, err error) {
	raw, err := image.RawManifest()
	if err != nil {
		return "", err
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return "", err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return "", err
	}
	repository, _, _ := strings.Cut(path, ":")
	s.PushBlob(repository, config, true)
	layers, err := image.Layers()
	if err != nil {
		return "", err
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return "", err
		}
		size, err := l.Size()
		if err != nil {
			_ = r.Close()
			return "", err
		}
		var content bytes.Buffer
		content.Grow(int(size) + bytes.MinRead) // not copied while it grows
		_, err = content.ReadFrom(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return "", err
		}
		s.PushBlob(repository, content.Bytes(), false)
	}
	return s.PushManifest(path, raw, mediaType), nil
}

// PushIndex stores an index as REPOSITORY:TAG with all its images.
func (s *Server) PushIndex(path string, index v1.ImageIndex) (ref string, err error) {
	parsed, err := index.IndexManifest()
	if err != nil {
		return "", err
	}
	repository, _, _ := strings.Cut(path, ":")
	for _, d := range parsed.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			return "", err
		}
		if _, err := s.Push(repository+"@"+d.Digest.String(), image); err != nil {
			return "", err
		}
	}
	raw, err := index.RawManifest()
	if err != nil {
		return "", err
	}
	return s.PushManifest(path, raw, parsed.MediaType), nil
}

// PushManifest stores any bytes as the manifest REPOSITORY:TAG and returns its
// reference.
func (s *Server) PushManifest(path string, raw []byte, mediaType types.MediaType) (ref string) {
	digest, _, _ := v1.SHA256(bytes.NewReader(raw)) // a memory reader does not fail
	m := stored{content: raw, mediaType: mediaType, digest: digest}
	repository := strings.FieldsFunc(path, func(r rune) bool { return r == ':' || r == '@' })[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[path] = m
	s.manifests[repository+"@"+digest.String()] = m
	return s.Host() + "/" + path
}

// PushBlob stores a blob; config spares it the quirks of blobs.
func (s *Server) PushBlob(repository string, content []byte, config bool) {
	repository, _, _ = strings.Cut(repository, "@")
	digest, _, _ := v1.SHA256(bytes.NewReader(content)) // a memory reader does not fail
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[repository+"@"+digest.String()] = stored{content: content, digest: digest, config: config}
}
