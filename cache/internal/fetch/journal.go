package fetch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A Journal is a text beside a partial tarball that says which bytes of which layers
// an interrupted attempt has written. Its lines:
//
//	dockercache-journal 1 <sha256 of where the layers are> <size>
//	writer <who>             as [sys.Writer] describes it; versions before have none
//	<layer> <from> <to>      bytes [from, to) of the layer are in the file
//	<layer> -                nothing of the layer counts any more
//
// Lines are only ever appended. Nothing is flushed: after a power failure, or when the
// kernel could not write what it had accepted, the journal lists more than is true. So
// what it lists is read from the disk and hashed all the same. A wrong entry only costs
// downloading the layer again.
//
// A nil journal records nothing. It is safe for concurrent use if its writer appends
// each line whole, as a file opened with O_APPEND does.
type Journal struct {
	w io.Writer
}

// journalStep is how many bytes of a chunk are written before a line says so:
// what is lost of a killed process, at most, for each connection.
const journalStep = 1 << 20

const journalHead = "dockercache-journal 1 %s %d\n"

// Add journals that bytes are in the file. A line that cannot be written is a range
// that is fetched again after a crash, no more.
func (j *Journal) Add(layer v1.Hash, from, to int64) {
	if j != nil && from < to {
		_, _ = fmt.Fprintf(j.w, "%s %d %d\n", layer.Hex, from, to)
	}
}

// Forget journals that nothing of a layer counts any more.
func (j *Journal) Forget(layer v1.Hash) {
	if j != nil {
		_, _ = fmt.Fprintf(j.w, "%s -\n", layer.Hex)
	}
}

const writerWord = "writer "

// ParseJournal returns what a journal lists of the layers of a layout, nothing
// if it is another layout's, and who writes the file. Lines that make no sense are passed
// over: the last one may be cut, and the digests show which are wrong.
func ParseJournal(content []byte, layout *tarball.Layout) (done map[v1.Hash][]sys.Interval, writer string) {
	lines := bufio.NewScanner(bytes.NewReader(content))
	if !lines.Scan() {
		return nil, ""
	}
	known := lines.Text()+"\n" == journalHeadOf(layout)
	sizes := map[string]tarball.Segment{}
	for _, s := range layout.Segments() {
		if s.IsBlob() {
			sizes[s.Blob.Hex] = s
		}
	}
	done = map[v1.Hash][]sys.Interval{}
	for lines.Scan() {
		if who, ok := strings.CutPrefix(lines.Text(), writerWord); ok {
			writer = who
		}
		if !known {
			continue
		}
		var hex string
		var i sys.Interval
		n, _ := fmt.Sscanf(lines.Text(), "%s %d %d", &hex, &i.From, &i.To)
		s, ok := sizes[hex]
		switch {
		case !ok:
		case n == 3 && i.From >= 0 && i.From < i.To && i.To <= s.Length:
			done[s.Blob] = append(done[s.Blob], i)
		case lines.Text() == hex+" -":
			delete(done, s.Blob)
		}
	}
	for layer := range done {
		done[layer] = sys.Union(done[layer])
	}
	return done, writer
}

func journalHeadOf(l *tarball.Layout) string {
	// Not the literal bytes: they are written again each time, and name the mirror
	// that the image came from, which may be another one in the next attempt.
	var where []byte
	for _, s := range l.Segments() {
		if s.IsBlob() {
			where = fmt.Appendf(where, "%s %d %d\n", s.Blob.Hex, s.Offset, s.Length)
		}
	}
	sum := sha256.Sum256(where)
	return fmt.Sprintf(journalHead, hex.EncodeToString(sum[:]), l.Size())
}

// NewJournal begins a journal of a layout on w with who writes the file and what is done
// already.
func NewJournal(w io.Writer, layout *tarball.Layout, writer string, done map[v1.Hash][]sys.Interval) (*Journal, error) {
	head := journalHeadOf(layout)
	if writer != "" {
		head += writerWord + writer + "\n"
	}
	if _, err := io.WriteString(w, head); err != nil {
		return nil, err
	}
	j := &Journal{w}
	for _, l := range layout.Layers() {
		for _, i := range done[l.Blob] {
			j.Add(l.Blob, i.From, i.To)
		}
	}
	return j, nil
}
