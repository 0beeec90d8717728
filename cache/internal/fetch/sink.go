package fetch

import (
	"context"
	"io"
	"os"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// A Sink is where the bytes of a tarball go: a file, or an upload whose parts are held
// in memory until they are hashed and sent. It must be safe for concurrent use.
//
// Every byte is written at its offset in the tarball, the literal ones first, in any
// order. Each layer is read back once, in order, to be hashed. A layer whose bytes
// were wrong is written and read once more.
type Sink interface {
	io.WriterAt
	io.ReaderAt
	// Hashed is called when n bytes of a layer, from offset on, are hashed. They are
	// not read again, unless the layer turns out to be wrong: they can go to the
	// disk, or to the server, while later ones come.
	Hashed(offset, n int64)
	// Window is how many bytes of layers the sink takes beyond those that are
	// hashed without a gap from the tarball's beginning on; 0 is no limit. With a
	// window the layers come in the tarball's order.
	Window() int64
}

// A StateSink is a [Sink] that keeps how far a layer is hashed, so that a later attempt can
// go on from there without the bytes before, see [Job.Hashed].
type StateSink interface {
	Sink
	// NextState returns the offset of the tarball, after the given one, at which the state is
	// wanted next.
	NextState(offset int64) int64
	// KeepState is called with the state of a layer's sha256 at such an offset, before Hashed
	// is called with the bytes before it.
	KeepState(offset int64, state HashState)
}

// A HashState is the sha256 of the first N bytes of a layer, as a hash's MarshalBinary
// gives it.
type HashState struct {
	N     int64
	State []byte
}

// A Copier is a [Sink] that takes bytes from where they are without this process
// reading them: inside the kernel, or on a server.
type Copier interface {
	Sink
	// Copy writes the n bytes at offset at of the layer in from at offset to. An error
	// of the sink is a [*sys.WriteError]; after any other the layer is looked for
	// elsewhere. unread reports whether they were copied without this process reading them.
	Copy(ctx context.Context, to int64, from Local, at, n int64) (unread bool, err error)
}

// Local is a layer that is already somewhere at hand, at an offset of what R reads.
// Whether its bytes are right is known only when they were hashed.
type Local struct {
	R      io.ReaderAt
	Offset int64
	// Name is what errors and logs call it: the path of a file.
	Name string
	// Verified, when not nil, reports whether the bytes there are known to be right, and were
	// all the time until it is called. It is called when a [Copier] has copied all of the layer
	// from there without reading it: if it returns true the layer is not read back. A sink with
	// a window gets every byte hashed.
	Verified func() bool
}

// File is the sink that writes a file.
type File struct{ *os.File }

// OSFile makes the file read ahead, see [sys.FileOf]: without it a layer that was cloned
// on XFS is read in pieces of 128 KiB, and a refresh takes 1.6 times as long.
func (f File) OSFile() *os.File { return f.File }

// Hashed implements [Sink]: publication shall not wait for the disk to take all of it.
func (f File) Hashed(offset, n int64) { sys.StartWriting(f.File, offset, n) }

// Window implements [Sink].
func (f File) Window() int64 { return 0 }

// Copy implements [Copier].
func (f File) Copy(ctx context.Context, to int64, from Local, at, n int64) (unread bool, err error) {
	if src := sys.FileOf(from.R); src != nil {
		return sys.CopyRange(ctx, f.File, to, src, from.Offset+at, n)
	}
	return false, sys.ReadAndWrite(ctx, f.File, to, from.R, from.Offset+at, n)
}
