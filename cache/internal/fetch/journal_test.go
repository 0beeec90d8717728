package fetch

import (
	"bytes"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func journalLayout(t testing.TB) (*tarball.Layout, v1.Hash, v1.Hash) {
	a, b := sized("a", 1000), sized("b", 500)
	return mustLayout(t, testImage(t, a, b)), a.Digest, b.Digest
}

func TestParseJournal(t *testing.T) {
	layout, a, b := journalLayout(t)
	var buf bytes.Buffer
	j := &Journal{&buf}
	j.Add(a, 500, 600)
	j.Add(a, 0, 100)
	j.Add(a, 100, 150)
	j.Add(b, 0, 500)
	j.Add(a, 550, 700)
	j.Forget(b)
	j.Add(b, 10, 20)
	j.Add(b, 20, 20) // nothing
	head := journalHeadOf(layout)
	for _, who := range []string{"", "ef53 boot pid:[1] 5 7 a host"} {
		line := ""
		if who != "" {
			line = "writer " + who + "\n"
		}
		done, writer := ParseJournal([]byte(head+line+buf.String()), layout)
		assert.Equal(t, who, writer)
		assert.Equal(t, map[v1.Hash][]sys.Interval{
			a: {{From: 0, To: 150}, {From: 500, To: 700}},
			b: {{From: 10, To: 20}},
		}, done)
	}
	// Who writes the file is known, though where its layers are is not.
	done, writer := ParseJournal([]byte("dockercache-journal 1 another 5\nwriter someone\n"+a.Hex+" 0 100\n"), layout)
	assert.Empty(t, done)
	assert.Equal(t, "someone", writer)

	var none *Journal // where there is none, nothing happens
	none.Add(a, 0, 1)
	none.Forget(a)
}

func TestParseJournalDistrusts(t *testing.T) {
	layout, a, _ := journalLayout(t)
	head := journalHeadOf(layout)
	line := a.Hex + " 0 100\n"
	for name, content := range map[string]string{
		"empty":           "",
		"no head":         line,
		"another layout":  "dockercache-journal 1 " + a.Hex + " 1\n" + line,
		"cut in its head": head[:20],
		"unknown layer":   head + cachetest.Digest([]byte("c")).Hex + " 0 100\n",
		"beyond the end":  head + a.Hex + " 0 1001\n",
		"negative":        head + a.Hex + " -1 100\n",
		"backwards":       head + a.Hex + " 100 0\n",
		"not numbers":     head + a.Hex + " x y\n",
		"cut":             head + a.Hex + " 1",
	} {
		done, _ := ParseJournal([]byte(content), layout)
		assert.Empty(t, done, name)
	}
	done, _ := ParseJournal([]byte(head+line+"garbage\n\x00\n"+line), layout)
	assert.Len(t, done, 1)
}

func FuzzParseJournal(f *testing.F) {
	layout, a, b := journalLayout(f)
	f.Add([]byte(journalHeadOf(layout) + a.Hex + " 0 100\n" + b.Hex + " 5 6\n" + a.Hex + " -\n"))
	f.Add([]byte(journalHeadOf(layout) + a.Hex + " 0 9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		all, _ := ParseJournal(content, layout)
		for layer, done := range all {
			size := map[v1.Hash]int64{a: 1000, b: 500}[layer]
			at := int64(-1)
			for _, i := range done {
				require.Less(t, at, i.From)
				require.Less(t, i.From, i.To)
				require.LessOrEqual(t, i.To, size)
				at = i.To
			}
			covered := int64(0)
			for _, s := range chunksOf(size, done) {
				require.Equal(t, covered, s.start)
				covered = s.end
			}
			require.Equal(t, size, covered)
		}
	})
}
