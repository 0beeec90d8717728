package dataroot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Record says what a template holds. It follows the file system in the template's file, so
// that it is read without mounting anything; and it is the file [RecordName] in the data
// root.
type Record struct {
	// Images are what the engine has, sorted by reference.
	Images []Image `json:"images"`
	// Engine is the program that unpacked them.
	Engine EngineRecord `json:"engine"`
	// OS and Architecture are of the machine on which that was done, by Go's names.
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	// Made is when the template was built or refreshed.
	Made time.Time `json:"made"`
	// Tool is the program that made it, with its version, as Go records them.
	Tool string `json:"tool"`
	// FileSystem is "ext4", and Size its length in bytes, most of which are holes.
	FileSystem string `json:"fileSystem"`
	Size       int64  `json:"size"`
}

// An Image is one that a template holds.
type Image struct {
	// Reference is what the engine knows it by.
	Reference string `json:"reference"`
	// Digest is that of its manifest, the identity of the tarball that it came from.
	Digest v1.Hash `json:"digest"`
	// Indexes are the digests of the indexes that it was found through.
	Indexes []v1.Hash `json:"indexes,omitempty"`
	// ID is what the engine calls it: the digest of its config or of its manifest.
	ID v1.Hash `json:"id"`
	// Tarball is the name of the tarball, without a path.
	Tarball string `json:"tarball"`
}

// An EngineRecord says which program unpacked the images.
type EngineRecord struct {
	Kind Kind `json:"kind"`
	// Version is what the program says of itself, such as 20.10.24+dfsg1.
	Version string `json:"version"`
	// Driver is the storage driver or snapshotter, such as overlay2.
	Driver string `json:"driver"`
}

// RecordName is the name of the file with the record in a data root.
const RecordName = ".dockercache-root.json"

// ErrNotTemplate is wrapped when a file is no template, or a damaged one.
var ErrNotTemplate = errors.New("not a data root's template")

// The end of a template's file is:
//
//	the record in JSON
//	its offset, which is the file system's length    8 bytes, big-endian
//	its length                                       8 bytes, big-endian
//	its SHA-256                                      32 bytes
//	recordMagic                                      16 bytes
const (
	recordMagic  = "dockercache-dr1\n"
	footerLength = 8 + 8 + sha256.Size + len(recordMagic)
	// mostRecord bounds what is read of a file that may be anything.
	mostRecord = 1 << 20
	// ext4MagicAt is where the two bytes 0x53 0xef are in a file system of ext2, 3 and 4
	// (https://docs.kernel.org/filesystems/ext4/globals.html, s_magic).
	ext4MagicAt = 1024 + 0x38
	// blockSize is that of the file system.
	blockSize = 4096
)

// isFor returns an error if another program, or another version of it, unpacked the images: it
// wraps [ErrNoTemplate].
func (r *Record) isFor(ctx context.Context, e Engine) error {
	here, err := e.Record(ctx)
	if err == nil && here != r.Engine {
		err = fmt.Errorf("%w: it was built by %s %s, the engine here is %s %s: build one for that", ErrNoTemplate,
			r.Engine.Kind, r.Engine.Version, here.Kind, here.Version)
	}
	return err
}

// isSame reports whether two records say the same.
func (r *Record) isSame(as *Record) bool {
	a, errA := json.Marshal(r)
	b, errB := json.Marshal(as)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// encode returns what follows the file system in a template's file.
func (r *Record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(text) > mostRecord {
		return nil, fmt.Errorf("the record of %d images has %d bytes, more than %d", len(r.Images), len(text), mostRecord)
	}
	end := binary.BigEndian.AppendUint64(bytes.Clone(text), uint64(r.Size))
	end = binary.BigEndian.AppendUint64(end, uint64(len(text)))
	sum := sha256.Sum256(text)
	return append(append(end, sum[:]...), recordMagic...), nil
}

// readRecord reads the record of a file of size bytes, and checks that a file system of the
// length that it names precedes it. The error wraps [ErrNotTemplate] for every other content.
func readRecord(r io.ReaderAt, size int64) (*Record, error) {
	wrong := func(format string, args ...any) (*Record, error) {
		return nil, fmt.Errorf("%w: %s", ErrNotTemplate, fmt.Sprintf(format, args...))
	}
	if size < int64(footerLength) {
		return wrong("it has %d bytes", size)
	}
	var footer [footerLength]byte
	if err := readFull(r, footer[:], size-int64(footerLength)); err != nil {
		return nil, err
	}
	if string(footer[footerLength-len(recordMagic):]) != recordMagic {
		return wrong("no record is at its end")
	}
	at, length := binary.BigEndian.Uint64(footer[:]), binary.BigEndian.Uint64(footer[8:])
	if length > mostRecord || at > uint64(size) || at+length+uint64(footerLength) != uint64(size) || at%blockSize != 0 || at == 0 {
		return wrong("its record cannot be %d bytes at %d of %d", length, at, size)
	}
	text := make([]byte, length)
	if err := readFull(r, text, int64(at)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); !bytes.Equal(sum[:], footer[16:16+sha256.Size]) {
		return wrong("the checksum of its record is wrong")
	}
	var record Record
	if err := json.Unmarshal(text, &record); err != nil {
		return wrong("its record cannot be read: %v", err)
	}
	var magic [2]byte
	if err := readFull(r, magic[:], ext4MagicAt); err != nil {
		return nil, err
	}
	if record.Size != int64(at) || record.FileSystem != fileSystem || magic != [2]byte{0x53, 0xef} {
		return wrong("no %s of %d bytes precedes its record", fileSystem, at)
	}
	return &record, nil
}

func readFull(r io.ReaderAt, p []byte, at int64) error {
	_, err := io.ReadFull(io.NewSectionReader(r, at, int64(len(p))), p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it became shorter
		return fmt.Errorf("%w: it ends before %d", ErrNotTemplate, at+int64(len(p)))
	}
	return err
}
