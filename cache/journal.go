package cache

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// A journal is a text file beside a partial tarball that says which bytes of
// which layers an interrupted run has written:
//
//	dockercache-journal 1 <sha256 of where the layers are> <size>
//	<layer> <from> <to>      bytes [from, to) of the layer are in the file
//	<layer> -                nothing of the layer counts any more
//
// Lines are only ever appended. Nothing is flushed: after a power failure the
// journal may say more than is true, and so it is believed only until the
// layer's sha256 is known. What it says wrongly costs a refetch of the layer.
type journal struct {
	w io.Writer
}

// journalStep is how many bytes of a span are written before a line says so:
// what a killed run has fetched in vain, at most, for each connection.
const journalStep = 1 << 20

const journalHead = "dockercache-journal 1 %s %d\n"

// add says that bytes are in the file. A line that cannot be written is a range
// that is fetched again after a crash, no more.
func (j *journal) add(layer v1.Hash, from, to int64) {
	if j != nil && from < to {
		_, _ = fmt.Fprintf(j.w, "%s %d %d\n", layer.Hex, from, to)
	}
}

func (j *journal) forget(layer v1.Hash) {
	if j != nil {
		_, _ = fmt.Fprintf(j.w, "%s -\n", layer.Hex)
	}
}

// maxJournal bounds what is read of a journal: 20 GB in steps of 1 MiB with
// lines of 100 bytes are 2 MB.
const maxJournal = 64 << 20

// readJournal returns what the journal at path says, which is nothing if it is
// not a file of its own: a link might lead anywhere, and a pipe never end.
func readJournal(path string, layout *Layout) map[v1.Hash][]interval {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxJournal {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil
	}
	return parseJournal(content, layout)
}

// parseJournal returns what a journal says of the layers of a layout: nothing,
// if it is another layout's. Lines that make no sense are passed over: the last
// one may be cut, and wrong ones are found out by the digests.
func parseJournal(content []byte, layout *Layout) map[v1.Hash][]interval {
	lines := bufio.NewScanner(bytes.NewReader(content))
	if !lines.Scan() || lines.Text()+"\n" != layout.journalHead() {
		return nil
	}
	sizes := map[string]Segment{}
	for _, s := range layout.segments {
		if s.IsBlob() {
			sizes[s.Blob.Hex] = s
		}
	}
	done := map[v1.Hash][]interval{}
	for lines.Scan() {
		var hex string
		var i interval
		n, _ := fmt.Sscanf(lines.Text(), "%s %d %d", &hex, &i.from, &i.to)
		s, ok := sizes[hex]
		switch {
		case !ok:
		case n == 3 && i.from >= 0 && i.from < i.to && i.to <= s.Length:
			done[s.Blob] = append(done[s.Blob], i)
		case lines.Text() == hex+" -":
			delete(done, s.Blob)
		}
	}
	for layer := range done {
		done[layer] = union(done[layer])
	}
	return done
}

// union sorts intervals and joins those that touch.
func union(all []interval) []interval {
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	joined := all[:0]
	for _, i := range all {
		if last := len(joined) - 1; last >= 0 && i.from <= joined[last].to {
			joined[last].to = max(joined[last].to, i.to)
			continue
		}
		joined = append(joined, i)
	}
	return joined
}

func (l *Layout) journalHead() string {
	// Not the literal bytes: they are written anew each time, and tell from which
	// mirror the image came, which may be another one in the next run.
	var where []byte
	for _, s := range l.segments {
		if s.IsBlob() {
			where = fmt.Appendf(where, "%s %d %d\n", s.Blob.Hex, s.Offset, s.Length)
		}
	}
	return fmt.Sprintf(journalHead, sha256Of(where).Hex, l.size)
}

// rewriteJournal makes the journal at path say what is done and no more, so that
// it does not grow from run to run, and returns it open for appending.
func rewriteJournal(path string, layout *Layout, done map[v1.Hash][]interval) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	j := &journal{f}
	if _, err := io.WriteString(f, layout.journalHead()); err != nil {
		_ = f.Close()
		return nil, err
	}
	for _, s := range layout.segments {
		for _, i := range done[s.Blob] {
			j.add(s.Blob, i.from, i.to)
		}
	}
	return f, nil
}
