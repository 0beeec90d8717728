package measure

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// ErrSpace is wrapped when a directory has too little space for a sample.
var ErrSpace = errors.New("too little space for a sample")

// DirectoryOptions of [Directory]. The zero value of each field works.
type DirectoryOptions struct {
	// Limit of each of the three samples: writing, reading by one, reading by many. Default: 5 s,
	// 256 MiB. Twice as much must be free.
	Limit Limit
	// Readers is how many there are of many. Default: 8.
	Readers int
	// Existing is the path of a tarball that is read in place of what was written. It is removed from the
	// page cache first, which slows down its other readers. If it is in the directory itself, it is also found
	// and opened as loads do, a few times, which counts as a use.
	Existing string
}

const (
	sampleBase, sampleKind = "advise", "sample" // of names of files, see sys.CreateTemp
	pieceSize              = 1 << 20            // of a write or read
	mostUnflushed          = 64 << 20
	latencySamples         = 16
	latencyLimit           = 2 * time.Second
)

// Directory measures the storage of a directory: it writes a file and flushes it, removes it from
// memory, and reads it by one and by many readers, in the way in which loads read a tarball.
func Directory(ctx context.Context, path string, o *DirectoryOptions) (_ *advise.Storage, _ []Sample, err error) {
	if o == nil {
		o = &DirectoryOptions{}
	}
	d := directory{path: path, limit: o.Limit.or(5*time.Second, 256<<20), readers: o.Readers}
	if d.readers == 0 {
		d.readers = 8
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure the directory %s: %w", path, err)
		}
	}()
	if err := d.checkSpace(); err != nil {
		return nil, nil, err
	}
	sys.SweepAbandoned(sys.Temporaries(path, sampleBase, sampleKind), time.Now())
	f, err := sys.CreateTemp(path, sampleBase, sampleKind, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, sys.Unlink(f.Name()), f.Close()) }()

	s := &advise.Storage{Shared: sys.IsNetworkAt(path)}
	wrote, err := d.write(ctx, f)
	if err != nil {
		return nil, nil, err
	}
	s.Write = wrote.rate()
	if s.Reflink, err = d.shares(f); err != nil {
		return nil, nil, err
	}
	latencies, err := d.latencies(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	read, size := f.Name(), wrote.Bytes
	if o.Existing != "" {
		info, err := os.Stat(o.Existing)
		if err != nil {
			return nil, nil, err
		}
		read, size = o.Existing, info.Size()
	}
	// One reader has the first half: what it reads ahead is not read by the others.
	one, err := d.read(ctx, read, 0, size/2, 1)
	if err != nil {
		return nil, nil, err
	}
	many, err := d.read(ctx, read, size/2, size, d.readers)
	if err != nil {
		return nil, nil, err
	}
	s.ReadOne, s.ReadMany = one.rate(), many.rate()
	if o.Existing != "" && d.has(o.Existing) {
		took, looked := tried(ctx, "tarball", "found and opened", func(ctx context.Context) error { return d.look(ctx, o.Existing) })
		s.Look, latencies = took, append(latencies, looked)
	}
	return s, append([]Sample{wrote, one, many}, latencies...), wait.Err(ctx)
}

// has reports whether a path leads to a file in the directory itself.
func (d *directory) has(path string) bool {
	here, err := os.Stat(d.path)
	there, statErr := os.Stat(filepath.Dir(path))
	return err == nil && statErr == nil && os.SameFile(here, there)
}

// look opens a tarball as loads do. Before, it is dropped from the page cache, which takes no time to speak of.
func (d *directory) look(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_ = sys.Drop(f) // then it is found in memory
	_ = f.Close()
	dir, err := cache.Open(d.path, nil)
	if err != nil {
		return err
	}
	t, err := dir.Get(ctx, filepath.Base(path))
	if err != nil {
		return err
	}
	return t.Close()
}

// Tarball measures how fast one reader reads a tarball that is there, and finds out whether files can
// share its bytes. All else of the storage is 0. It is dropped from the page cache before. The zero
// limit is 5 s and 64 MiB.
func Tarball(ctx context.Context, path string, limit Limit) (*advise.Storage, Sample, error) {
	d := &directory{path: filepath.Dir(path), limit: limit.or(5*time.Second, 64<<20)}
	f, err := os.Open(path)
	if err != nil {
		return nil, Sample{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, Sample{}, err
	}
	one, err := d.read(ctx, path, 0, info.Size(), 1)
	if err != nil {
		return nil, one, err
	}
	s := &advise.Storage{Shared: sys.IsNetworkAt(d.path), ReadOne: one.rate()}
	s.Reflink, err = d.shares(f)
	return s, one, err
}

type directory struct {
	path    string
	limit   Limit
	readers int
}

func (d *directory) checkSpace() error {
	at, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer at.Close()
	if free := sys.FreeSpace(at); free >= 0 && free < 2*d.limit.Bytes {
		return fmt.Errorf("%w: %s is free, and a sample of %s is written only where twice that is free: make room",
			ErrSpace, humanize.IBytes(uint64(free)), humanize.IBytes(uint64(d.limit.Bytes)))
	}
	return nil
}

// write writes pieces that double in size, each flushed: so the time of the last flush, which
// nothing ends, can be foreseen.
func (d *directory) write(ctx context.Context, f *os.File) (Sample, error) {
	s := Sample{What: "written and flushed"}
	buffer := make([]byte, pieceSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(buffer) // never fails
	begun := time.Now()
	for piece := int64(pieceSize); s.Bytes < d.limit.Bytes; piece = min(2*piece, mostUnflushed) {
		piece = min(piece, d.limit.Bytes-s.Bytes)
		if s.Bytes > 0 {
			left := d.limit.Time - s.Took
			if fits := int64(s.rate() * left.Seconds()); fits < piece {
				piece = fits / pieceSize * pieceSize
			}
			if piece <= 0 {
				s.Note = endedByTime
				break
			}
		}
		for end := s.Bytes + piece; s.Bytes < end; {
			if err := wait.Err(ctx); err != nil {
				return s, err
			}
			for at := 0; at < len(buffer); at += sys.Align { // no two blocks are the same
				binary.LittleEndian.PutUint64(buffer[at:], uint64(s.Bytes)+uint64(at))
			}
			n, err := f.WriteAt(buffer[:min(pieceSize, end-s.Bytes)], s.Bytes)
			s.Bytes += int64(n)
			if err != nil {
				return s, err
			}
		}
		if err := sys.Flush(f); err != nil {
			return s, err
		}
		s.Took = time.Since(begun)
	}
	return s, nil
}

// shares reports whether another file can share a file's bytes.
func (d *directory) shares(f *os.File) (_ bool, err error) {
	other, err := sys.CreateTemp(d.path, sampleBase, sampleKind, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, sys.Unlink(other.Name()), other.Close()) }()
	return sys.CloneRange(other, 0, f, 0, pieceSize) > 0, nil
}

// latencies measures what a lock and a publication cost beside the bytes.
func (d *directory) latencies(ctx context.Context, s *advise.Storage) ([]Sample, error) {
	var locks, renames []time.Duration
	for begun := time.Now(); len(locks) < latencySamples && (len(locks) == 0 || time.Since(begun) < latencyLimit); {
		if err := wait.Err(ctx); err != nil {
			return nil, err
		}
		lock, rename, err := d.latency()
		if err != nil {
			return nil, err
		}
		locks, renames = append(locks, lock), append(renames, rename)
	}
	s.Lock, s.Rename = median(locks), median(renames)
	return []Sample{
		{What: times(len(locks), "file") + " created and locked", Took: sum(locks)},
		{What: times(len(renames), "file") + " renamed, and the directory flushed", Took: sum(renames)},
	}, nil
}

func (d *directory) latency() (lock, rename time.Duration, err error) {
	begun := time.Now()
	f, err := sys.CreateTemp(d.path, sampleBase, sampleKind, 0o600)
	if err != nil {
		return 0, 0, err
	}
	lock = time.Since(begun)
	at := f.Name()
	defer func() { err = errors.Join(err, sys.Unlink(at), f.Close()) }()
	begun = time.Now()
	to := filepath.Join(d.path, sys.UniqueName(sampleBase, sampleKind))
	if err := os.Rename(at, to); err != nil {
		return 0, 0, err
	}
	at = to
	dir, err := os.Open(d.path)
	if err != nil {
		return 0, 0, err
	}
	// As in a publication, a file system that cannot flush a directory is none that fails.
	_ = sys.Flush(dir)
	_ = dir.Close()
	return lock, time.Since(begun), nil
}

// read reads a part of a file, which many readers divide.
func (d *directory) read(ctx context.Context, path string, from, to int64, readers int) (Sample, error) {
	s := Sample{What: "read by " + times(readers, "reader")}
	to = min(to, from+d.limit.Bytes)
	part := (to - from) / int64(readers)
	if part == 0 {
		return s, fmt.Errorf("%s is too small to be read by %s", path, times(readers, "reader"))
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for range readers {
		f, err := os.Open(path)
		if err != nil {
			return s, err
		}
		files = append(files, f)
	}
	if sys.Drop(files[0]) != nil {
		s.Note = "some of it may have been in memory"
	}
	reading, cancel := context.WithTimeoutCause(ctx, d.limit.Time, errTime)
	defer cancel()
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	begun := time.Now()
	for i, f := range files {
		at := from + int64(i)*part
		all.Go(func() {
			n, err := readInOrder(reading, f, at, at+part)
			mu.Lock()
			defer mu.Unlock()
			s.Bytes += n
			if err != nil {
				failed = err
			}
		})
	}
	all.Wait()
	s.Took = time.Since(begun)
	if err := errors.Join(failed, wait.Err(ctx)); err != nil {
		return s, err
	}
	if errors.Is(context.Cause(reading), errTime) {
		s.Note = joinNotes(s.Note, endedByTime)
	}
	return s, nil
}

// readInOrder reads a part of a file as loads do, until ctx ends, but one piece at least, and returns
// how much.
func readInOrder(ctx context.Context, f *os.File, at, end int64) (read int64, err error) {
	buffer := make([]byte, pieceSize)
	var ahead sys.Prefetch
	for at < end && (read == 0 || ctx.Err() == nil) {
		ahead.Keep(f, at, end)
		n, err := f.ReadAt(buffer[:min(pieceSize, end-at)], at)
		at, read = at+int64(n), read+int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return read, err
		}
	}
	return read, nil
}
