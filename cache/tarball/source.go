package tarball

import (
	"context"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Source gives ranges of blobs. A repository in a registry is one, and so are an
// ordered list of them, a [Tarball], and what [FromV1] returns. It must be safe for
// concurrent use.
//
// What a source can say more are optional interfaces, whose methods must be safe for
// concurrent use and quick: [MultiSource], [Distruster],
// [OriginReporter] and [RangeIgnorer] of the source itself, [TemporaryError],
// [RetryAfterError] and [RangeIgnorer] of its errors, found with [errors.As].
type Source interface {
	// ReadRange returns the length bytes from offset on of the blob with this
	// digest. Length is at least 1. The reader ends after length bytes, or
	// with an error when the source has fewer or more than it should; it must
	// be closed, and ctx ends it too. The bytes need not be verified.
	ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)
}

// A MultiSource is a [Source] with several origins that can be read apart from each other.
// A fetch measures the origins, and gives ranges to those that are fast, in place of
// calling ReadRange of the whole. Its method has no type of this package, so that
// importing it is not needed.
type MultiSource interface {
	Source
	// EachOrigin calls yield with each origin of a blob, the preferred first, until yield
	// returns false. The arguments are the fields of an [Origin]; read is its ReadRange. It
	// is called before each range, and the answer may change.
	EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read ReadRangeFunc) bool)
}

// A ReadRangeFunc is a function that is a [Source].
type ReadRangeFunc = func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)

type funcSource ReadRangeFunc

func (f funcSource) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return f(ctx, digest, offset, length)
}

// OriginsOf returns the origins of a blob, the preferred first: those of a [MultiSource],
// or else, and if it names none, one [Origin] without a name that is src itself.
func OriginsOf(src Source, digest v1.Hash) []Origin {
	var origins []Origin
	if multi, ok := src.(MultiSource); ok {
		multi.EachOrigin(digest, func(name, host string, parallel bool, wait time.Duration, read ReadRangeFunc) bool {
			origins = append(origins, Origin{Source: funcSource(read), Name: name, Host: host, Parallel: parallel, Wait: wait})
			return true
		})
	}
	if len(origins) == 0 {
		origins = []Origin{{Source: src}}
	}
	return origins
}

// An Origin is one of the origins of a [MultiSource].
type Origin struct {
	// Source reads from this origin alone.
	Source
	// Name identifies the origin, also over several images: the repository. Errors and
	// reports have it.
	Name string
	// Host is HOST or HOST:PORT of the server. Origins with the same host share its limits.
	Host string
	// Parallel reports whether the origin may be read from at the same time as those before
	// it. Others are read in their place, when they fail or are slow.
	Parallel bool
	// Wait is how long the origin is not to be asked; 0 is not at all. It is asked before
	// only if there is no other. Less than 0: the host has refused requests, and may be asked
	// since that long ago. It gets fewer and larger ones.
	Wait time.Duration
}

// A SourceUse is what one origin has given. Its rate is Bytes / Busy.
type SourceUse struct {
	// Name is that of the [Origin]; empty for a source that is no [MultiSource].
	Name string
	// Bytes is how many came, those that were not used included.
	Bytes int64
	// Duplicate is how many of them were not used: another connection was faster, or the range
	// was given to another one, or the layer was begun again.
	Duplicate int64
	// Requests is how many ranges were asked for.
	Requests int
	// Refused is how many of them were answered with a wish to wait, see [RetryAfterError].
	Refused int
	// FirstByte is how long the first byte of a range took, in the median.
	FirstByte time.Duration
	// Busy is how long at least one connection was open.
	Busy time.Duration
	// Connected is how long all connections were open together: Connected / Busy is how many
	// were in the mean.
	Connected time.Duration
	// Connections is how many were open at the same time at most.
	Connections int
}

// A FileReader is an [io.ReaderAt] that reads a file, at the same offsets. The operating
// system is asked to read that ahead, its size is checked, and it is known whether it is
// on this machine. An [*os.File] needs no such method. OSFile may return nil.
type FileReader interface {
	io.ReaderAt
	OSFile() *os.File
}

// A PartReader is a reader whose bytes come from an [os.File] where they can: a connection takes
// them from there by sendfile, without a copy of them in this process.
type PartReader interface {
	io.ReadCloser
	// Part waits until the next byte can be read, and returns a reader of some bytes from there
	// on, whose R is an [os.File] that nobody else reads; nil where there is none: then the caller
	// uses Read. What was read of the part before counts as read, and the rest of it comes again,
	// by Part or by Read. A part that ends early, or with an error, may be read on by Read. After
	// the last part it returns io.EOF.
	Part() (*io.LimitedReader, error)
}

// A Distruster is a [Source] with several origins. Distrust is called when the bytes of
// a blob were wrong, before it is read once more: the source should take another
// origin then.
type Distruster interface {
	Distrust(digest v1.Hash)
}

// An OriginReporter is a [Source] that knows where the bytes of a blob came from. Errors
// name it.
type OriginReporter interface {
	Origins(digest v1.Hash) []string
}

// A RangeIgnorer is a [Source], or an error of one, that gives blobs only from their
// beginning. Then each blob is read as one stream, from offset 0. An error says so of
// one blob.
type RangeIgnorer interface {
	IgnoresRange() bool
}

// A TemporaryError reports whether the same request may succeed later. Other errors,
// such as a broken connection, count as temporary: the request is repeated until too little
// has come for six times in a row, which takes some 10 s. [Permanent] makes an error that
// is not. Of joined errors the first TemporaryError counts.
type TemporaryError interface {
	error
	Temporary() bool
}

// A RetryAfterError says how long to wait before the next request; 0 is no wish.
type RetryAfterError interface {
	error
	RetryAfter() time.Duration
}

// Permanent returns an error that wraps err and that is not worth another request:
// a fetch ends with it at once. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error   { return e.error }
func (e *permanentError) Temporary() bool { return false }

// Progress says how far the work on a tarball is, in bytes. A function that takes it is
// called by one goroutine at a time for each tarball, must be quick, and must not call
// back into what calls it.
type Progress struct {
	// Done is how many bytes of layers are there, those of an earlier attempt
	// included. It falls when a layer has to be fetched again.
	Done int64
	// Total is how many there will be.
	Total int64
	// Downloaded is how many bytes came from the source until now. It counts bytes
	// that were wrong, and so may exceed Done.
	Downloaded int64
	// Reused is how many bytes were there already: in another tarball, or left by an
	// earlier attempt.
	Reused int64
	// Phase is empty while bytes are fetched or sent. In the phase [Unpacking], Done is
	// how many bytes of what was sent a container engine has unpacked, of Total; Total is 0
	// when the engine does not report that.
	Phase Phase
}

// A Phase is a part of the work on a tarball that has a progress of its own.
type Phase string

// Unpacking is the phase in which a container engine unpacks the layers that it was sent.
const Unpacking Phase = "unpacking"
