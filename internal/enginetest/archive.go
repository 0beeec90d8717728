package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// readArchive reads all files of an archive. Of two with one name the last counts.
func readArchive(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, failure("Error processing tar file(exit status 1): %v", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, failure("Error processing tar file(exit status 1): %v", err)
		}
		files[path.Clean(h.Name)] = content
	}
}

// said is what an engine says of a failure, in its own words.
type said string

func (s said) Error() string { return string(s) }

func failure(format string, args ...any) error { return said(fmt.Sprintf(format, args...)) }

// open returns a file of an archive, or what Docker says when there is none.
func open(files map[string][]byte, name string) ([]byte, error) {
	content, ok := files[path.Clean(name)]
	if !ok {
		return nil, fmt.Errorf("open /var/lib/docker/tmp/docker-import-1/%s: no such file or directory", name)
	}
	return content, nil
}

// A layer is what is in one, in order.
type layer []entry

type entry struct {
	name    string
	regular bool
	content []byte
}

// unpack reads a layer, as it is or with gzip, and returns its diff ID too.
func unpack(blob []byte) (layer, v1.Hash, error) {
	raw := blob
	if bytes.HasPrefix(blob, []byte{0x1f, 0x8b}) {
		r, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			return nil, v1.Hash{}, err
		}
		if raw, err = io.ReadAll(r); err != nil {
			return nil, v1.Hash{}, err
		}
	}
	l := layer{}
	archive := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return l, hashOf(raw), nil
		}
		if err != nil {
			return nil, v1.Hash{}, err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, v1.Hash{}, err
		}
		l = append(l, entry{path.Clean(h.Name), h.Typeflag == tar.TypeReg, content})
	}
}

// apply puts a layer on top of files, whiteouts included
// (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
func (l layer) apply(files map[string]string) {
	remove := func(name string, itself bool) {
		for f := range files {
			if itself && f == name || strings.HasPrefix(f, name+"/") || name == "." {
				delete(files, f)
			}
		}
	}
	for _, e := range l { // they hide only what is below the layer
		dir, base := path.Split(e.name)
		if base == ".wh..wh..opq" {
			remove(path.Clean(dir), false)
		} else if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			remove(path.Join(dir, hidden), true)
		}
	}
	for _, e := range l {
		if e.regular && !strings.HasPrefix(path.Base(e.name), ".wh.") {
			files[e.name] = string(e.content)
		}
	}
}

func hashOf(content []byte) v1.Hash {
	h, _, _ := v1.SHA256(bytes.NewReader(content)) // a memory reader does not fail
	return h
}

// chainOf returns the name of a layer on top of those below it
// (https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid).
func chainOf(diffIDs []v1.Hash) v1.Hash {
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = hashOf([]byte(chain.String() + " " + d.String()))
	}
	return chain
}
