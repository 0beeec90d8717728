package loader

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
)

// Images are written as the names of their layers.
func TestLayersThatAreThere(t *testing.T) {
	for _, c := range []struct {
		image, chains, blobs string
		local                []string
	}{
		{image: "abc", chains: "", blobs: ""},
		{image: "abc", local: []string{"abc"}, chains: "abc", blobs: "abc"},
		{image: "abc", local: []string{"abcd"}, chains: "abc", blobs: "abc"},
		{image: "abc", local: []string{"a", "ab", "x"}, chains: "ab", blobs: "ab"},
		{image: "abc", local: []string{"bc"}, chains: "", blobs: "bc"},
		{image: "abc", local: []string{"axc"}, chains: "a", blobs: "ac"},
		// Each of these has one more than the other, but no chain grows out of two.
		{image: "abc", local: []string{"ab", "xc"}, chains: "ab", blobs: "abc"},
		{image: "abc", local: []string{""}, chains: "", blobs: ""},
		{image: "", local: []string{"a"}, chains: "", blobs: ""},
		// A layer within the prefix and above it: its other chain needs the blob.
		{image: "aba", local: []string{"a"}, chains: "", blobs: "a"},
		{image: "aba", local: []string{"ab"}, chains: "b", blobs: "ab"},
		{image: "aba", local: []string{"aba"}, chains: "ab", blobs: "ab"},
		{image: "aab", local: []string{"a"}, chains: "", blobs: "a"},
		{image: "aab", local: []string{"aa"}, chains: "a", blobs: "a"},
	} {
		names := func(s string) (names []string) {
			for _, r := range s {
				names = append(names, string(r))
			}
			return names
		}
		file := stocked(t, testRef, small(names(c.image)...)...)
		digests, diffIDs := map[v1.Hash]string{}, map[string]v1.Hash{}
		every := stocked(t, testRef, small(names("abcdx")...)...)
		for i, l := range every.Image.Layers() {
			name := names("abcdx")[i]
			digests[l.Digest], diffIDs[name] = name, every.Image.DiffIDs()[i]
		}
		var local [][]v1.Hash
		for _, l := range c.local {
			var ids []v1.Hash
			for _, n := range names(l) {
				ids = append(ids, diffIDs[n])
			}
			local = append(local, ids)
		}
		sent := func(has map[v1.Hash]bool) string {
			out := ""
			for _, n := range names("abcdx") {
				for digest, there := range has {
					if digests[digest] == n && there {
						out += n
					}
				}
			}
			return out
		}
		assert.Equal(t, c.chains, sent(chainHas(file.Image, local)), "chains: %+v", c)
		assert.Equal(t, c.blobs, sent(blobHas(file.Image, local)), "blobs: %+v", c)
		assert.Len(t, chainHas(file.Image, local), len(blobHas(file.Image, local)))
	}
}
