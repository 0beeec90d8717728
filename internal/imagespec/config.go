package imagespec

import (
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/strictjson"
)

// A ConfigFile is what is needed of an image's config.
type ConfigFile struct {
	// Platform has no fields that the config does not state.
	Platform v1.Platform
	// DiffIDs are the digests of the layers unpacked, bottom first.
	DiffIDs []v1.Hash
}

// Config reads a config. Fields that are not needed may be of any kind: engines differ
// in what they read, and old images have strings where lists should be.
func Config(raw []byte) (*ConfigFile, error) {
	if err := checkValues(raw); err != nil {
		return nil, err
	}
	var layers struct {
		RootFS *struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := strictjson.Unmarshal(raw, &layers); err != nil {
		return nil, malformed(err)
	}
	if layers.RootFS == nil {
		return nil, errors.New("it has no rootfs: not the config of a container image")
	}
	var c struct {
		OS           lenient `json:"os"`
		Architecture lenient `json:"architecture"`
		Variant      lenient `json:"variant"`
		OSVersion    lenient `json:"os.version"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, malformed(err)
	}
	out := &ConfigFile{
		Platform: v1.Platform{OS: string(c.OS), Architecture: string(c.Architecture), Variant: string(c.Variant), OSVersion: string(c.OSVersion)},
		DiffIDs:  make([]v1.Hash, len(layers.RootFS.DiffIDs)),
	}
	for i, text := range layers.RootFS.DiffIDs {
		digest, err := Digest(text)
		if err != nil {
			return nil, fmt.Errorf("diff_ids %d: %w", i, err)
		}
		out.DiffIDs[i] = digest
	}
	return out, nil
}

// lenient is a string; "" for a value of another kind.
type lenient string

// UnmarshalJSON implements [json.Unmarshaler].
func (l *lenient) UnmarshalJSON(raw []byte) error {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		*l = lenient(text)
	}
	return nil
}
