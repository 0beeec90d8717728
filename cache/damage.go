package cache

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A DamageError says everything that is wrong in a file that begins as a
// tarball. It wraps [ErrBlobDigest] if that is in layers, and [ErrNotTarball] if
// it is in the headers between them; both may be.
type DamageError struct {
	// Path is the tarball's.
	Path string
	// Layers are those with wrong bytes, in the order in which they are in the
	// file. There is none when only headers are wrong.
	Layers []v1.Hash

	all []error
}

func (e *DamageError) Error() string {
	texts := make([]string, len(e.all))
	for i, err := range e.all {
		texts[i] = err.Error()
	}
	return e.Path + ": " + strings.Join(texts, "; ")
}

// Unwrap returns what is wrong, one error for each place.
func (e *DamageError) Unwrap() []error { return e.all }

func (e *DamageError) add(err error) { e.all = append(e.all, err) }

func (e *DamageError) orNil() error {
	if len(e.all) == 0 {
		return nil
	}
	return e
}
