package admin

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"strings"
)

const (
	// maxEntries bounds how much of a tar file is looked at: an archive of docker save
	// has a few entries for each layer.
	maxEntries = 10_000
	// maxSavedManifest is the limit on its manifest.json, in bytes.
	maxSavedManifest = 1 << 20
)

// savedReferences returns the references in an archive of docker save, or of a program
// that writes the same. Of the archive no more than the headers are read.
func savedReferences(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	archive := tar.NewReader(f)
	for range maxEntries {
		h, err := archive.Next()
		if err != nil {
			return nil
		}
		if strings.TrimPrefix(h.Name, "./") != "manifest.json" {
			continue
		}
		var images []struct{ RepoTags []string }
		if json.NewDecoder(io.LimitReader(archive, maxSavedManifest)).Decode(&images) != nil {
			return nil
		}
		var references []string
		for _, image := range images {
			references = append(references, image.RepoTags...)
		}
		return references
	}
	return nil
}
