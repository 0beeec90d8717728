package tarballtest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/dockercache/dockercache/internal/imagetest"
)

// Saved returns the archive that docker save of version 20.10 writes of the image of layers
// with these names, each of size bytes, tagged with references: layers that are not
// compressed, in directories that are in no order, and manifest.json near the end.
func Saved(refs []string, size int, names ...string) ([]byte, error) {
	var layers []v1.Layer
	for _, n := range names {
		l, err := imagetest.Layer(n, size)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	image, err := imagetest.Image(layers...)
	if err != nil {
		return nil, err
	}
	// Configs as old builders wrote them.
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Author = "docker save"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	rawConfig, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	id, err := image.ConfigName()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	paths := make([]string, len(layers))
	for i := len(layers) - 1; i >= 0; i-- {
		r, err := layers[i].Uncompressed()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		paths[i] = fmt.Sprintf("%064x/layer.tar", 1000-i)
		if err := add(paths[i], content); err != nil {
			return nil, err
		}
	}
	if err := add(id.Hex+".json", rawConfig); err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": id.Hex + ".json", "RepoTags": refs, "Layers": paths}})
	if err != nil {
		return nil, err
	}
	if err := add("manifest.json", manifest); err != nil {
		return nil, err
	}
	return out.Bytes(), w.Close()
}
