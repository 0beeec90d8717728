package imagespec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrMalformed is wrapped by errors about what is no JSON, or has a value of a wrong
// kind. Other errors are about documents that are well formed and not supported.
var ErrMalformed = errors.New("malformed")

// ErrArtifact is wrapped by errors about a manifest that is no image's.
var ErrArtifact = errors.New("an artifact, not a container image")

const (
	// MaxLayers is the most layers that an image may have. Docker stops at 125
	// (maxLayerDepth in moby's layer store), Linux' overlay file system at 500
	// (OVL_MAX_STACK).
	MaxLayers = 500
	// MaxBlob is the largest size that a blob may declare, in bytes: 64 TiB, a
	// thousand times what registries accept. The sum of all sizes in a manifest
	// stays below 2^63.
	MaxBlob = 64 << 40
)

// A descriptor is one of a manifest or index before its digest is checked.
type descriptor struct {
	v1.Descriptor
	Digest string `json:"digest"`
}

type document struct {
	SchemaVersion int64           `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *descriptor     `json:"config"`
	Layers        []descriptor    `json:"layers"`
	Manifests     []descriptor    `json:"manifests"`
}

// Manifest reads an image manifest, and checks that it is no other kind of document
// too and no artifact's, that it has at most [MaxLayers] layers, and the digest and size
// of config and layers. What has a config of an unknown type may still be no image: only
// [Config] shows that.
func Manifest(raw []byte) (*v1.Manifest, error) {
	d, err := read(raw, "an image manifest", "manifests")
	if err != nil {
		return nil, err
	}
	if err := checkVersion(d); err != nil {
		return nil, err
	}
	if artifact := d.artifact(); artifact != "" {
		return nil, fmt.Errorf("%s: %w", artifact, ErrArtifact)
	}
	if d.Config == nil {
		return nil, errors.New("it has no config")
	}
	if n := len(d.Layers); n > MaxLayers {
		return nil, fmt.Errorf("it has %d layers, more than %d: no engine loads that many", n, MaxLayers)
	}
	m := &v1.Manifest{SchemaVersion: d.SchemaVersion, MediaType: d.MediaType, ArtifactType: d.ArtifactType, Layers: []v1.Descriptor{}}
	if m.Config, err = d.Config.check(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	for i, l := range d.Layers {
		layer, err := l.check()
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		m.Layers = append(m.Layers, layer)
	}
	return m, nil
}

// An Entry is what an index lists.
type Entry struct {
	// Descriptor has a zero digest when Err is not nil.
	v1.Descriptor
	// Err is why what the entry names cannot be asked for: an index is not unusable
	// because of an entry that nobody needs.
	Err error
}

// Index reads an index, and checks that it is no other kind of document too.
func Index(raw []byte) ([]Entry, error) {
	d, err := read(raw, "an index", "config", "layers")
	if err != nil {
		return nil, err
	}
	if err := checkVersion(d); err != nil {
		return nil, err
	}
	entries := make([]Entry, len(d.Manifests))
	for i, m := range d.Manifests {
		entries[i].Descriptor, entries[i].Err = m.check()
	}
	return entries, nil
}

func checkVersion(d *document) error {
	if d.SchemaVersion != 2 {
		return fmt.Errorf("schema version %d is not supported, only 2: push the image again with a current tool", d.SchemaVersion)
	}
	return nil
}

// check returns the descriptor; without its digest if that is an error.
func (d *descriptor) check() (v1.Descriptor, error) {
	out := d.Descriptor
	digest, err := Digest(d.Digest)
	if err != nil {
		return out, err
	}
	switch {
	case d.Size < 0:
		return out, fmt.Errorf("%s: its size is negative: %d bytes", digest, d.Size)
	case d.Size > MaxBlob:
		return out, fmt.Errorf("%s: a size of %d bytes is not plausible: more than %d", digest, d.Size, int64(MaxBlob))
	}
	out.Digest = digest
	return out, nil
}

// Digest reads a digest. One of another algorithm than sha256 is unsupported.
func Digest(text string) (v1.Hash, error) {
	algorithm, hex, ok := strings.Cut(text, ":")
	switch {
	case !ok:
		return v1.Hash{}, fmt.Errorf("%.100q is not a digest: want sha256: and 64 hexadecimal digits", text)
	case algorithm != "sha256":
		return v1.Hash{}, fmt.Errorf("the digest %.100q is not sha256: other algorithms are not supported", text)
	case len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "":
		return v1.Hash{}, fmt.Errorf("the digest %.100q is not sha256: and 64 hexadecimal digits in lower case", text)
	}
	return v1.Hash{Algorithm: algorithm, Hex: hex}, nil
}

// fields are the names of an object's fields that are read. A field with fields of its
// own is an object or a list of objects.
type fields map[string]fields

var (
	descriptorFields = fields{
		"mediaType": nil, "digest": nil, "size": nil, "artifactType": nil, "annotations": nil,
		"platform": {"os": nil, "architecture": nil, "variant": nil, "os.version": nil, "os.features": nil},
	}
	documentFields = fields{
		"schemaVersion": nil, "mediaType": nil, "artifactType": nil,
		"config": descriptorFields, "layers": descriptorFields, "manifests": descriptorFields,
		"fsLayers": nil, "history": nil, // of schema version 1
	}
	configFields = fields{"os": nil, "architecture": nil, "variant": nil, "os.version": nil, "rootfs": {"diff_ids": nil}}
)

// read decodes a document of a kind that must not have some fields, nor those of schema
// version 1: readers that go by the fields would take it for something else.
// containerd and containers/image refuse these documents too.
func read(raw []byte, kind string, not ...string) (*document, error) {
	present, err := members(raw, documentFields)
	if err != nil {
		return nil, err
	}
	var d document
	if err := decode(raw, &d); err != nil {
		return nil, err
	}
	if d.SchemaVersion == 1 {
		return nil, checkVersion(&d)
	}
	for _, field := range append(not, "fsLayers", "history") {
		if present[field] {
			return nil, fmt.Errorf("it is ambiguous: %s that also has %q", kind, field)
		}
	}
	return &d, nil
}

// members returns which of the known fields an object has. An object that has one of
// them twice is ambiguous, also when the names differ in case: Go's decoder does not
// distinguish them, others do.
func members(raw []byte, known fields) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	start, err := dec.Token()
	if err != nil {
		return nil, malformed(err)
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	present := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, malformed(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, malformed(err)
		}
		for name, inner := range known {
			if !strings.EqualFold(key.(string), name) { // a key is a string
				continue
			}
			if present[name] {
				return nil, fmt.Errorf("it is ambiguous: it has %q twice, or in two cases", name)
			}
			present[name] = true
			if err := innerMembers(value, inner); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, malformed(err)
	}
	return present, nil
}

// innerMembers checks an object, or each object of a list. What is neither is left to
// the decoder.
func innerMembers(value json.RawMessage, known fields) error {
	if known == nil {
		return nil
	}
	switch value[0] {
	case '{':
		_, err := members(value, known)
		return err
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(value, &list); err != nil {
			return malformed(err)
		}
		for _, one := range list {
			if one[0] != '{' {
				continue
			}
			if _, err := members(one, known); err != nil {
				return err
			}
		}
	}
	return nil
}

func decode(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return malformed(err)
	}
	return nil
}

// malformed says what is wrong with the document; the decoder's own errors name Go's
// types.
func malformed(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fmt.Errorf("%w: its field %q is a %.100s", ErrMalformed, wrong.Field, wrong.Value)
	}
	return fmt.Errorf("%w: not JSON: %w", ErrMalformed, err)
}
