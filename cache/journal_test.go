package cache

import (
	"bytes"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func journalLayout(t testing.TB) (*Layout, v1.Hash, v1.Hash) {
	a, b := sized("a", 1000), sized("b", 500)
	return mustLayout(t, testImage(t, a, b)), a.Digest, b.Digest
}

func TestParseJournal(t *testing.T) {
	layout, a, b := journalLayout(t)
	var buf bytes.Buffer
	j := &journal{&buf}
	j.add(a, 500, 600)
	j.add(a, 0, 100)
	j.add(a, 100, 150)
	j.add(b, 0, 500)
	j.add(a, 550, 700)
	j.forget(b)
	j.add(b, 10, 20)
	j.add(b, 20, 20) // nothing
	head := layout.journalHead()
	assert.Equal(t, map[v1.Hash][]interval{
		a: {{0, 150}, {500, 700}},
		b: {{10, 20}},
	}, parseJournal([]byte(head+buf.String()), layout))

	var none *journal // where there is none, nothing happens
	none.add(a, 0, 1)
	none.forget(a)
}

func TestParseJournalDistrusts(t *testing.T) {
	layout, a, _ := journalLayout(t)
	head := layout.journalHead()
	line := a.Hex + " 0 100\n"
	for name, content := range map[string]string{
		"empty":           "",
		"no head":         line,
		"another layout":  "dockercache-journal 1 " + a.Hex + " 1\n" + line,
		"cut in its head": head[:20],
		"unknown layer":   head + sha256Of([]byte("c")).Hex + " 0 100\n",
		"beyond the end":  head + a.Hex + " 0 1001\n",
		"negative":        head + a.Hex + " -1 100\n",
		"backwards":       head + a.Hex + " 100 0\n",
		"not numbers":     head + a.Hex + " x y\n",
		"cut":             head + a.Hex + " 1",
	} {
		assert.Empty(t, parseJournal([]byte(content), layout), name)
	}
	assert.Len(t, parseJournal([]byte(head+line+"garbage\n\x00\n"+line), layout), 1)
}

func FuzzParseJournal(f *testing.F) {
	layout, a, b := journalLayout(f)
	f.Add([]byte(layout.journalHead() + a.Hex + " 0 100\n" + b.Hex + " 5 6\n" + a.Hex + " -\n"))
	f.Add([]byte(layout.journalHead() + a.Hex + " 0 9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for layer, done := range parseJournal(content, layout) {
			size := map[v1.Hash]int64{a: 1000, b: 500}[layer]
			at := int64(-1)
			for _, i := range done {
				require.Less(t, at, i.from)
				require.Less(t, i.from, i.to)
				require.LessOrEqual(t, i.to, size)
				at = i.to
			}
			covered := int64(0)
			for _, s := range spansOf(size, func(int64) int64 { return 64 }, done) {
				require.Equal(t, covered, s.start)
				covered = s.end
			}
			require.Equal(t, size, covered)
		}
	})
}
