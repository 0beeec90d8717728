package fetch

import (
	"context"
	"io"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
)

// unread is a sink that copies without reading, on any file system, and counts what is read
// back.
type unread struct {
	File
	reads bool // Copy reads after all, at the second call

	mu           sync.Mutex
	copies, back int64
}

func (u *unread) ReadAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.back += int64(len(p))
	return u.File.ReadAt(p, off)
}

func (u *unread) Copy(ctx context.Context, to int64, from Local, at, n int64) (bool, error) {
	u.mu.Lock()
	u.copies++
	first := u.copies == 1
	u.mu.Unlock()
	return first || !u.reads, sys.ReadAndWrite(ctx, u.File.File, to, from.R, from.Offset+at, n)
}

// verified counts the layers that are verified.
type verified struct {
	copying
	layers []v1.Hash
}

func (v *verified) Verified(layer v1.Hash) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.layers = append(v.layers, layer)
}

func yes() bool { return true }
func no() bool  { return false }

// from returns a place with what is known of it.
func from(l Local, verified func() bool) Local {
	l.Verified = verified
	return l
}

func TestFetchDoesNotReadBackWhatIsVerified(t *testing.T) {
	src := cachetest.Blobs{}
	const size = 300_000
	content := cachetest.Noise(1, size)
	layer := src.Add(content)
	other := src.Add(cachetest.Noise(2, 7000))
	layout := mustLayout(t, testImage(t, layer, other))
	wrong := append([]byte{content[0] ^ 1}, content[1:]...)
	for name, c := range map[string]struct {
		local   []Local
		have    []sys.Interval
		reads   bool
		back    int64 // of the layer, read back
		damaged bool
	}{
		"verified":                     {local: []Local{from(localFile(t, content), yes)}},
		"taken on trust":               {local: []Local{from(localFile(t, wrong), yes)}},
		"not known":                    {local: []Local{localFile(t, content)}, back: size},
		"changed meanwhile":            {local: []Local{from(localFile(t, content), no)}, back: size},
		"changed, and wrong":           {local: []Local{from(localFile(t, wrong), no)}, back: 2 * size, damaged: true},
		"read to be copied":            {local: []Local{from(localFile(t, content), yes)}, reads: true, back: size},
		"the next place":               {local: []Local{from(localFile(t, content[:1000]), yes), from(localFile(t, content), yes)}, back: size},
		"the rest is the source's":     {local: []Local{from(localFile(t, content[:150_000]), yes)}, back: size},
		"a part of an attempt before":  {local: []Local{from(localFile(t, content), yes)}, have: []sys.Interval{{From: 0, To: 10}}, back: size},
		"all is of an attempt before":  {local: []Local{from(localFile(t, content), yes)}, have: []sys.Interval{{From: 0, To: size}}, back: size},
		"another place is not trusted": {local: []Local{localFile(t, content), from(localFile(t, wrong), yes)}, back: size},
	} {
		t.Run(name, func(t *testing.T) {
			f := tempFile(t)
			at, _ := layout.Layer(layer.Digest)
			for _, h := range c.have {
				_, err := f.WriteAt(content[h.From:h.To], at.Offset+h.From)
				require.NoError(t, err)
			}
			sink, events := &unread{File: File{f}, reads: c.reads}, &verified{}
			fetcher := testFetcher(4)
			fetcher.SetSizes(50_000, 50_000, 50_000)
			before := append([]Local{}, c.local...)
			_, err := fetcher.Fetch(t.Context(), Job{
				Sink: sink, Layout: layout, Source: src, Events: events,
				Local: map[v1.Hash][]Local{layer.Digest: c.local}, Have: map[v1.Hash][]sys.Interval{layer.Digest: c.have},
			})
			require.NoError(t, err)
			assert.Equal(t, c.back+other.Size, sink.back)
			assert.ElementsMatch(t, []v1.Hash{layer.Digest, other.Digest}, events.layers, "each once")
			if name != "taken on trust" {
				requireFetched(t, f, layout, src)
			}
			assert.Equal(t, c.damaged, len(events.damaged) == 1)
			for i := range before {
				assert.Equal(t, before[i].Verified == nil, c.local[i].Verified == nil, "the job's is as it was")
			}
		})
	}
}

// A layer without bytes cannot be copied, and one whose file is not there any more comes from
// the source.
func TestFetchOfAVerifiedLayerThatIsEmptyOrGone(t *testing.T) {
	src := cachetest.Blobs{}
	empty, gone := src.Add(nil), src.Add(cachetest.Noise(3, 1000))
	layout := mustLayout(t, testImage(t, empty, gone))
	closed := localFile(t, nil)
	require.NoError(t, closed.R.(io.Closer).Close())
	f := tempFile(t)
	events := &verified{}
	_, err := testFetcher(2).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src, Events: events, Local: map[v1.Hash][]Local{
		empty.Digest: {from(localFile(t, nil), yes)}, gone.Digest: {from(closed, yes)},
	}})
	require.NoError(t, err)
	requireFetched(t, f, layout, src)
	assert.ElementsMatch(t, []v1.Hash{empty.Digest, gone.Digest}, events.layers)
}

// With a window, which moves with what is hashed, every byte is hashed; and so is what a sink
// does not copy itself.
func TestFetchHashesForASinkWithAWindow(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 100_000)
	layer := src.Add(content)
	layout := mustLayout(t, testImage(t, layer))
	wrong := append([]byte{content[0] ^ 1}, content[1:]...)
	for name, sinkOf := range map[string]func(f File) Sink{
		"a window": func(f File) Sink { return unreadWindow{&unread{File: f}} },
		"no copy":  func(f File) Sink { return struct{ Sink }{f} },
	} {
		t.Run(name, func(t *testing.T) {
			f := tempFile(t)
			events := &verified{}
			_, err := testFetcher(2).Fetch(t.Context(), Job{Sink: sinkOf(File{f}), Layout: layout, Source: src, Events: events, Local: map[v1.Hash][]Local{layer.Digest: {from(localFile(t, wrong), yes)}}})
			require.NoError(t, err)
			requireFetched(t, f, layout, src)
			assert.Equal(t, []v1.Hash{layer.Digest}, events.damaged)
		})
	}
}

type unreadWindow struct{ *unread }

func (unreadWindow) Window() int64 { return 10_000 }
