package admin

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/dockercache/dockercache/cache/tarball"
)

// A config is what is read of an image's config. In other fields images have what no
// type foresees.
type config struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
	Created      string `json:"created"`
}

func readConfig(image *tarball.Image) (c config) {
	_ = json.Unmarshal(image.Config(), &c) // what can be read was read
	return c
}

// platform returns OS/ARCH[/VARIANT], "" if the config does not say.
func (c config) platform() string {
	switch {
	case c.OS == "" || c.Architecture == "":
		return ""
	case c.Variant != "":
		return c.OS + "/" + c.Architecture + "/" + c.Variant
	}
	return c.OS + "/" + c.Architecture
}

const (
	// maxEntries bounds how much of a tar file is looked at: an archive of docker save
	// has a few entries for each layer.
	maxEntries = 10_000
	// maxSavedManifest is the limit on its manifest.json, in bytes.
	maxSavedManifest = 1 << 20
)

// savedImages returns the references in the archive at path if it is one of docker save,
// or of a program that writes the same; why is the reason for which it cannot be read as
// a tarball of this cache. Of the archive no more than the headers are read.
func savedImages(path string, why error) (references []string, saved bool) {
	if !errors.Is(why, tarball.ErrNotTarball) {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	archive := tar.NewReader(f)
	for i := range maxEntries {
		h, err := archive.Next()
		switch {
		case err != nil, i == 0 && h.Name == "oci-layout": // as in ours, which is damaged then
			return nil, false
		case h.Name != "manifest.json":
			continue
		}
		var images []struct {
			Config   string
			RepoTags []string
		}
		if json.NewDecoder(io.LimitReader(archive, maxSavedManifest)).Decode(&images) != nil || len(images) == 0 || images[0].Config == "" {
			return nil, false
		}
		for _, image := range images {
			references = append(references, image.RepoTags...)
		}
		return references, true
	}
	return nil, false
}
