package imagespec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/internal/strictjson"
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
	// maxValues is how many members and elements a document may have: as many as fit
	// into 4 MiB of an index with nothing but platforms. Decoded they take up to a
	// hundred times their bytes.
	maxValues = 1 << 17
)

// A descriptor is one of a document before its digest is checked.
type descriptor struct {
	v1.Descriptor
	Digest string `json:"digest"`
}

// A document is an image manifest before it is checked.
type document struct {
	SchemaVersion int64           `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *descriptor     `json:"config"`
	Layers        []descriptor    `json:"layers"`
}

// Manifest reads an image manifest, and checks that it is no other kind of document
// too and no artifact's, that it has at most [MaxLayers] layers, and the digest and size
// of config and layers. What has a config of an unknown type may still be no image: only
// [Config] shows that.
func Manifest(raw []byte) (*v1.Manifest, error) {
	if mediaType, err := MediaType(raw); err != nil {
		return nil, err
	} else if mediaType != "" && !mediaType.IsImage() {
		return nil, fmt.Errorf("media type %q is not an image manifest's: an index needs a platform chosen first", mediaType)
	}
	var d document
	if err := read(raw, &d, "an image manifest", "manifests"); err != nil {
		return nil, err
	}
	if d.SchemaVersion != 2 {
		return nil, fmt.Errorf("schema version %d is not supported, only 2: push the image again with a current tool", d.SchemaVersion)
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
	var err error
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
	// Descriptor is what could be read, when Err is not nil: without a platform, and
	// without a digest that is none.
	v1.Descriptor
	// Err is why what the entry names cannot be asked for: an index is not unusable
	// because of an entry that nobody needs.
	Err error
}

// Index reads the entries of an index, and checks that it is no other kind of document
// too. Its other fields may be of any kind.
func Index(raw []byte) ([]Entry, error) {
	if mediaType, err := MediaType(raw); err != nil {
		return nil, err
	} else if mediaType != "" && !mediaType.IsIndex() {
		return nil, fmt.Errorf("media type %q is not an index's", mediaType)
	}
	var index struct {
		SchemaVersion int64             `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	if err := read(raw, &index, "an index", "config", "layers"); err != nil {
		return nil, err
	}
	if index.SchemaVersion != 2 && index.SchemaVersion != 0 { // engines do not ask for it
		return nil, fmt.Errorf("schema version %d is not supported, only 2", index.SchemaVersion)
	}
	entries := make([]Entry, len(index.Manifests))
	for i, m := range index.Manifests {
		var err error
		if entries[i], err = newEntry(m); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// newEntry reads an entry. The error is that of one that is ambiguous.
func newEntry(raw []byte) (Entry, error) {
	var d descriptor
	err := malformed(strictjson.Unmarshal(raw, &d))
	if err == nil {
		out, err := d.check()
		return Entry{out, err}, nil
	}
	if !errors.Is(err, ErrMalformed) {
		return Entry{}, err
	}
	// A field of a wrong kind. The decoder has read the others, but not checked them.
	var only struct {
		Digest lenient `json:"digest"`
	}
	if err := malformed(strictjson.Unmarshal(raw, &only)); err != nil && !errors.Is(err, ErrMalformed) {
		return Entry{}, err
	}
	e := Entry{d.Descriptor, err}
	e.Platform = nil
	e.Digest, _ = Digest(string(only.Digest)) // zero if it is none
	return e, nil
}

// MediaType returns what a document states as its own type, "" if nothing. Schema version 1
// has none that is of use.
func MediaType(raw []byte) (types.MediaType, error) {
	var head struct {
		SchemaVersion int64           `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
	}
	if err := strictjson.Unmarshal(raw, &head); err != nil {
		return "", malformed(err)
	}
	if head.SchemaVersion == 1 {
		return "", errors.New("schema version 1: push the image again with a current tool")
	}
	return head.MediaType, nil
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

// DigestOf returns the digest of raw bytes.
func DigestOf(raw []byte) v1.Hash {
	sum := sha256.Sum256(raw)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// read decodes a document of a kind that must not have some fields, nor those of schema
// version 1: readers that go by the fields would take it for something else.
// containerd and containers/image refuse these documents too.
func read(raw []byte, into any, kind string, not ...string) error {
	if err := checkValues(raw); err != nil {
		return err
	}
	if err := strictjson.Unmarshal(raw, into); err != nil {
		return malformed(err)
	}
	var present struct {
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		Manifests json.RawMessage `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"` // of schema version 1, as the next
		History   json.RawMessage `json:"history"`
	}
	if err := strictjson.Unmarshal(raw, &present); err != nil {
		return malformed(err)
	}
	for _, field := range []struct {
		name  string
		value json.RawMessage
	}{
		{"manifests", present.Manifests}, {"config", present.Config}, {"layers", present.Layers}, {"fsLayers", present.FSLayers}, {"history", present.History},
	} {
		if field.value != nil && slices.Contains(append(not, "fsLayers", "history"), field.name) {
			return fmt.Errorf("it is ambiguous: %s that also has %q", kind, field.name)
		}
	}
	return nil
}

// checkValues counts the commas that separate values, of JSON or not.
func checkValues(raw []byte) error {
	n, inString := 1, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case c == ',' && !inString:
			n++
		}
	}
	if n > maxValues {
		return fmt.Errorf("it has %d values, more than %d", n, maxValues)
	}
	return nil
}

// malformed returns the decoder's error in words of the document: its own ones name Go's
// types. One that does not wrap [ErrMalformed] is about an ambiguous document.
func malformed(err error) error {
	if err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return fmt.Errorf("%w: a JSON %.100s, not an object", ErrMalformed, wrong.Value)
		}
		return fmt.Errorf("%w: its field %q is a %.100s", ErrMalformed, strings.ReplaceAll(wrong.Field, "Descriptor.", ""), wrong.Value)
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%w: not JSON: %w", ErrMalformed, err)
	}
	return fmt.Errorf("it is ambiguous: %w", err)
}
