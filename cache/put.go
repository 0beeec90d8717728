package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/atomicfile"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/internal/wait"
)

// An Outcome says what [Dir.Put] did.
type Outcome string

const (
	// Stocked: the tarball was written and published.
	Stocked Outcome = "stocked"
	// Unchanged: the tarball was there already; nothing was read or written.
	Unchanged Outcome = "unchanged"
	// Superseded: the tarball that is there comes from a newer build run; it was
	// left as it is.
	Superseded Outcome = "superseded"
)

// A Result says what [Dir.Put] did. All counts are in bytes.
type Result struct {
	// Outcome is empty when Put failed.
	Outcome Outcome
	// Digest is the manifest's of the image that was to be stocked.
	Digest v1.Hash
	// Replaced is the manifest's digest of the tarball that had the name before and
	// was, or would have been, replaced; zero if there was none.
	Replaced v1.Hash
	// Path is where the tarball is.
	Path string
	// Total is the tarball's size.
	Total int64
	// Downloaded is how much was read from the source, also when Put fails.
	Downloaded int64
	// Reused is how much came from tarballs in the directory, or from another
	// image that this process stocks at the same time: Cloned and Copied together.
	Reused int64
	// Cloned is how much of that shares its space on the disk with where it came
	// from: nothing was read or written.
	Cloned int64
	// Copied is how much of it was copied, by the kernel or the file server where
	// they can.
	Copied int64
	// Resumed is how much an earlier attempt had left, which was neither downloaded
	// nor copied again.
	Resumed int64
	// Damaged are the paths of tarballs of which a layer was wrong. It was fetched
	// from the source instead; the tarballs are as before. [Dir.Repair] does not list
	// the one that it repairs.
	Damaged []string
	// Sources is what each source has given, in the order in which they were first asked,
	// also when Put fails.
	Sources []tarball.SourceUse
	// Unrecorded, when not nil, is why it could not be recorded beside the tarball that
	// it is of a newer build run or another group, or that a record there cannot be read: an
	// older run may replace the tarball. Put has not failed.
	Unrecorded error
}

// PutOptions of [Dir.Put] and [Dir.Stock]. The zero value of each field works.
type PutOptions struct {
	// Provenance is recorded in the tarball. Stock fills in Source when it is empty. Of a
	// tarball that is unchanged only a newer Run is recorded.
	Provenance tarball.Provenance
	// Group is recorded beside the tarball: [Dir.Prune] keeps the newest tarball of
	// each group. Tarballs of one image for several branches belong together, and so
	// its name without the suffix serves. At most 200 bytes of UTF-8 without control
	// characters. Like the time of use it is recorded as far as this user may write
	// there. Default: the tarball's name up to the last "_"; of one that is unchanged,
	// what is recorded.
	Group string
	// Progress, when not nil, is called when the layers begin to come, and whenever
	// bytes of them were written. It is not called when nothing has to be written.
	Progress func(tarball.Progress)
	// Observer, when not nil, is notified of what Put does, see the phases of [timing]. The last phase
	// has ended when Put returns.
	Observer timing.Observer
	// Incoming, when not nil, is called when the layers begin to come, with the tarball that is
	// being written: others can read its layers while they come. It is called once at
	// most: not when nothing has to be fetched or copied. It is for directories alone.
	Incoming func(*Incoming)
	// Force lets an older build run replace the tarball of a newer one.
	Force bool
	// Replace lets the tarball be replaced that holds an image of another repository.
	// Default: [ErrOtherImage], and what is there stays.
	Replace bool
	// Rewrite writes the tarball even if it looks unchanged. Use it when a layer is known
	// to be damaged: intact layers are taken from it, the others come from the source. All of
	// them are hashed.
	Rewrite bool
	// Verify reads and hashes all of a tarball that seems to be there, as
	// [tarball.Tarball.Verify] does. If a byte is wrong, or cannot be read, it is written
	// again, as with Rewrite. When a tarball is written every layer is hashed, also what is
	// cloned or copied. Default: its beginning and its size are believed, and of other tarballs
	// what is recorded of their verification, see [Open].
	Verify bool
	// MinRate, when not 0, is how many bytes a second must come from the source, in the mean
	// of a minute in which some are missing. Below that Put fails with [ErrTooSlow]; what
	// has come serves the next attempt. Time that is spent waiting for other writers does
	// not count. An upper limit of time is that of ctx.
	MinRate int64
	// Preempt makes the writer of an older build run that is still at work give
	// up, within seconds: its Put returns [ErrPreempted]. What it has fetched is
	// used if it is of the same image. Default: wait for it. In a bucket nobody waits for
	// an older run, and it has no effect.
	Preempt bool
}

// A Remote is an image of which the digest is known, and that gives the rest when it
// is asked for. It must be safe for concurrent use. What registry.Client.Resolve returns is
// one: it has made one request.
type Remote interface {
	tarball.Source
	// Digest returns the digest of the image's manifest.
	Digest() v1.Hash
	// Source returns the complete reference that the image was resolved at.
	Source() string
	// Content returns the manifest and the config as served. Afterwards Digest and
	// Source are those of this manifest, should it be another one than before.
	Content(ctx context.Context) (manifest, config []byte, err error)
}

// An Indexer is a [Remote] that may have been found through indexes. Like the digest they
// are known before Content is called, and are afterwards those of its manifest.
type Indexer interface {
	Remote
	// Indexes returns the indexes that the manifest was found through, as
	// [tarball.NewImage] takes them; none if the reference names the manifest.
	Indexes() [][]byte
}

func indexesOf(remote Remote) [][]byte {
	if i, ok := remote.(Indexer); ok {
		return i.Indexes()
	}
	return nil
}

// Stock is [Dir.Put] for an image of which no more than the digest is known: manifest
// and config are asked for only when something is to be done. So a tarball that is
// there already costs what it took to resolve the image, one request. ref is as for
// [tarball.NewImage].
//
// The result is never nil. The errors are those of Put and of remote;
// [tarball.ErrInvalidImage].
func (d *Dir) Stock(ctx context.Context, name, ref string, remote Remote, o *PutOptions) (*Result, error) {
	if remote == nil {
		return &Result{}, errors.New("stock: no image was given")
	}
	p, err := d.newPut(ctx, name, o)
	if err != nil {
		return &Result{}, err
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return p.result, fmt.Errorf("%w: reference %q: %w", tarball.ErrInvalidImage, ref, err)
	}
	p.digest, p.reference, p.indexes = remote.Digest(), named.String(), indexesOf(remote)
	p.result.Digest = p.digest
	defer timing.End(p.Observer)
	if done, err := p.isDone(ctx); done || err != nil {
		return p.result, err
	}
	timing.Begin(p.Observer, timing.Resolve)
	manifest, config, err := remote.Content(ctx)
	if err != nil {
		return p.result, err
	}
	img, err := tarball.NewImage(ref, manifest, config, indexesOf(remote)...)
	if err != nil {
		return p.result, fmt.Errorf("%s: %w", remote.Source(), err)
	}
	if p.Provenance.Source == "" {
		p.Provenance.Source = remote.Source()
	}
	return p.result, p.run(ctx, img, remote)
}

// Put stocks img as the tarball called name, which must end in .tar and must
// not begin with a dot. The layers come from tarballs in the directory that have
// them, and from src. Every byte is verified, see [Open] for what that means.
//
// When the tarball is there already, with the same manifest digest, reference and
// indexes, and the size that its layout needs, nothing is done but to record that
// it was used, and the outcome is [Unchanged]. If all that it lacks is an index, it is
// written again with the layers that it has; where there is no space for that, it is
// [Unchanged] too. When what is there is an image of another
// repository, by the reference in it without the tag, nothing is done either, and the
// error is [ErrOtherImage], see [PutOptions.Replace]. When what is there comes from a
// newer build run, the outcome is [Superseded]. Otherwise it is written to a
// partial file, verified, flushed, and renamed; what was under the name stays
// until then, and stays when anything fails. A file that is no complete tarball of this
// package, such as one of docker save, or that cannot be read, counts as none: the name
// is this image's, and the file is replaced. Put may be called concurrently, for
// the same name too: one works, the others wait for it and look again, see [Open]. A layer
// that another Put of the same process is fetching is waited for too, unless next to
// nothing comes to that one: then one of those that wait fetches it, with its own source.
// "Next to nothing" is less than 64 KiB/s, over all connections, for 10 s, or nothing for 90 s.
//
// An upper limit of time is that of ctx: [context.WithTimeoutCause]. A lower limit of rate is
// [PutOptions.MinRate].
//
// When it is interrupted, by a crash, a signal or a source that fails, the
// partial file stays, and the next Put of the same image under the same name
// downloads only what is missing.
//
// A range that fails is asked for again from where it stopped, until six attempts in a
// row have together brought less than 64 KiB, or less than a sixteenth of a short range,
// each at less than 1 KiB/s or within a second; until 24 while other ranges make progress. A
// host that only answers that it wants to be asked later is given up after a minute, or six
// such answers if that takes longer. A layer with wrong bytes is fetched once more. Methods
// of src's errors, [tarball.TemporaryError] and the like, are obeyed.
//
// The result is never nil. The errors: [ErrInvalidName]; [ErrOtherImage]; [*SpaceError];
// [ErrPreempted]; [ErrTooSlow]; [tarball.ErrSize] and [tarball.ErrDigest] for bytes that are not the
// layer's; those of src and of the file system; when ctx ends, both ctx.Err() and its
// cause.
func (d *Dir) Put(ctx context.Context, name string, img *tarball.Image, src tarball.Source, o *PutOptions) (*Result, error) {
	p, err := d.newPut(ctx, name, o)
	if err != nil {
		return &Result{}, err
	}
	if img == nil || src == nil {
		return p.result, fmt.Errorf("stock %s: an image and a source are required", name)
	}
	return p.result, p.run(ctx, img, src)
}

// put is one call of Put or of what is like it.
type put struct {
	PutOptions
	dir        *Dir
	name, path string
	digest     v1.Hash
	reference  string
	indexes    [][]byte    // that the tarball is to have
	hasAllBut  bool        // what is there is the same image, and lacks one of them
	repairs    os.FileInfo // what must be there, and be no other; nil: anything
	damaged    os.FileInfo // what Verify has found to be damaged
	flow       *flow       // of the work
	result     *Result
}

func (d *Dir) newPut(ctx context.Context, name string, o *PutOptions) (*put, error) {
	if err := wait.Err(ctx); err != nil {
		return nil, err
	}
	path, err := d.tarballPath(name)
	if err != nil {
		return nil, err
	}
	p := &put{dir: d, name: name, path: path, result: &Result{Path: path}}
	if o != nil {
		p.PutOptions = *o
	}
	if err := p.PutOptions.Check(name); err != nil {
		return nil, err
	}
	return p, nil
}

// Check returns an error for options that cannot be meant for the tarball called name.
func (o *PutOptions) Check(name string) error {
	if o.MinRate < 0 {
		return fmt.Errorf("stock %s: PutOptions.MinRate is %d bytes a second: it must be 0, for no limit, or more", name, o.MinRate)
	}
	if len(o.Group) > maxName { // the record beside the tarball has little room
		return fmt.Errorf("%w %q: its group has %d bytes, more than %d", ErrInvalidName, name, len(o.Group), maxName)
	}
	if !utf8.ValidString(o.Group) || strings.ContainsFunc(o.Group, unicode.IsControl) {
		return fmt.Errorf("%w %q: its group %q is not UTF-8, or contains a control character", ErrInvalidName, name, o.Group)
	}
	return nil
}

func (p *put) run(ctx context.Context, img *tarball.Image, src tarball.Source) error {
	p.digest, p.reference, p.indexes = img.Digest(), img.Reference(), img.Indexes()
	p.result.Digest = p.digest
	defer timing.End(p.Observer)
	if done, err := p.isDone(ctx); done || err != nil {
		return err
	}
	layout, err := p.plan(img)
	if err != nil {
		return err
	}
	timing.Begin(p.Observer, timing.Lock)
	lock, ctx, err := p.dir.lock(ctx, p.name, p.Provenance.Run, p.Preempt)
	if err != nil {
		return withNeed(err, p.dir.path, layout)
	}
	defer lock.unlock()
	p.flow = lock.flow
	// The owner before may have done it.
	if done, err := p.isDone(ctx); done || err != nil {
		return err
	}
	if layout, err = p.plan(img); err != nil {
		return err
	}
	err = withNeed(p.write(ctx, img, layout, src), p.dir.path, layout)
	if p.hasAllBut && errors.As(err, new(*SpaceError)) {
		p.indexes = nil
		if done, _ := p.isDone(ctx); done {
			p.dir.log.WarnContext(ctx, "no space to add the index to a tarball, it stays as it is", "tarball", p.path, "error", err)
			return nil
		}
	}
	return err
}

// plan plans the tarball.
func (p *put) plan(img *tarball.Image) (*tarball.Layout, error) {
	layout, err := tarball.NewLayout(img, p.Provenance)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", p.name, err)
	}
	p.result.Total = layout.Size()
	return layout, nil
}

// isDone reports whether nothing is to be done, and fills in the result.
func (p *put) isDone(ctx context.Context) (bool, error) {
	timing.Begin(p.Observer, timing.Look)
	d := p.dir
	current, info, err := d.current(p.path)
	if current != nil {
		defer current.Close()
	}
	if err == nil && p.repairs != nil && (current == nil || !os.SameFile(info, p.repairs)) {
		err = fmt.Errorf("%s: %w", p.path, ErrReplaced)
	}
	if current == nil || err != nil {
		return false, err
	}
	was, _, unread := readRecords(d.path, marksOf(d.path)[p.name])
	p.result.Digest, p.result.Replaced = p.digest, v1.Hash{}
	outcome, isSame := Unchanged, current.Image.Digest() == p.digest && current.Image.Reference() == p.reference
	p.hasAllBut = isSame && !containsAll(current.Image.Indexes(), p.indexes)
	run := runOf(&current.Info, was)
	switch {
	case isSame && !p.hasAllBut:
		if damaged, err := p.isDamaged(ctx, current, info); damaged || err != nil {
			return false, err
		}
		sweepPartials(d.path, p.name, d.now())
		sweepPrevious(d.path, p.name, d.sweepGrace(), d.now())
		p.result.Unrecorded = p.recorded(ctx, setUsed(d.path, p.name, &current.Info, p.Provenance.Run, p.Group, d.now()))
	case !p.Replace && refname.Repository(current.Image.Reference()) != refname.Repository(p.reference):
		return false, fmt.Errorf("%s: %w: it holds %s, and %s is of another repository", p.path, ErrOtherImage, current.Image.Reference(), p.reference)
	case run.NewerThan(p.Provenance.Run) && !p.Force:
		outcome = Superseded
	case isSame:
		if p.Provenance.Run.ID == 0 { // it is still of the run that it was of
			p.Provenance.Run = run
		}
		p.result.Unrecorded = p.recorded(ctx, unread)
		return false, nil
	default:
		p.result.Replaced = current.Image.Digest()
		p.result.Unrecorded = p.recorded(ctx, unread)
		return false, nil
	}
	p.result.Outcome, p.result.Total = outcome, current.Layout.Size()
	return true, nil
}

// containsAll reports whether each of wanted is one of have.
func containsAll(have, wanted [][]byte) bool {
	return !slices.ContainsFunc(wanted, func(w []byte) bool {
		return !slices.ContainsFunc(have, func(h []byte) bool { return bytes.Equal(h, w) })
	})
}

// recorded reports an error of recording something beside the tarball.
func (p *put) recorded(ctx context.Context, err error) error {
	if err != nil && p.result.Unrecorded == nil {
		p.dir.log.WarnContext(ctx, "what is known of a tarball cannot be recorded: an older run may replace it", "tarball", p.path, "error", err)
	}
	return err
}

// isDamaged reports whether the tarball that is there is known to be damaged, or is
// found to be so if that is to be looked for. The error is that of ctx.
func (p *put) isDamaged(ctx context.Context, current *tarball.Tarball, info os.FileInfo) (bool, error) {
	if p.Rewrite || p.damaged != nil && os.SameFile(info, p.damaged) {
		return true, nil
	}
	if !p.Verify {
		return false, nil
	}
	err := p.dir.verifyAll(ctx, p.name, current, nil)
	if ctx.Err() != nil {
		return false, wait.Err(ctx)
	}
	if err != nil {
		p.damaged = info
		p.dir.log.WarnContext(ctx, "a tarball is damaged, it is written again", "tarball", p.path, "error", err)
	}
	return err != nil, nil
}

// watch returns what looks after the fetches of this call.
func (p *put) watch(src tarball.Source) watch {
	source := p.Provenance.Source
	if r, ok := src.(Remote); ok {
		source = r.Source()
	}
	var was os.FileInfo
	return watch{flow: p.flow, rate: &rate{}, minRate: p.MinRate, source: source, published: func(ctx context.Context) (bool, error) {
		is, err := os.Lstat(p.path)
		if err != nil || was != nil && os.SameFile(is, was) {
			return false, nil
		}
		was = is
		return p.isDone(ctx)
	}}
}

// write fills a partial file, a new one or one that an earlier attempt left, and
// publishes it.
func (p *put) write(ctx context.Context, img *tarball.Image, layout *tarball.Layout, src tarball.Source) (err error) {
	d := p.dir
	partial, err := d.beginPartial(ctx, p.name, p.digest, layout)
	if errors.As(err, new(*SpaceError)) {
		return err
	}
	if err != nil {
		return fmt.Errorf("create a partial file for %s: %w", p.path, err)
	}
	defer partial.close()
	// Not before: what is to be resumed may be as old as what is to be swept.
	sweepPartials(d.path, p.name, d.now())
	sweepPrevious(d.path, p.name, d.sweepGrace(), d.now())
	if err := partial.copyAbandoned(ctx, layout, func(need int64) error { return checkFree(partial.file, d.path, need) }); err != nil {
		return err
	}
	// Where others could write to the file while it had this name, they can have changed what
	// was hashed.
	begun, err := partial.file.Stat()
	if err != nil {
		return err
	}
	a := newAssembly(ctx, d, partial, layout, src, p.Progress, !p.Verify && !p.Rewrite, p.watch(src))
	a.observer = p.Observer
	defer a.release()
	if p.Incoming != nil {
		a.begin = func() *Incoming {
			in := newIncoming(partial, img, layout)
			if in != nil {
				p.Incoming(in)
			}
			return in
		}
	}
	// Who reads it takes what is published, or learns that it is not.
	defer func() {
		if err == nil && p.result.Outcome != Stocked {
			a.incoming.end(errDone)
		} else {
			a.incoming.end(err)
		}
	}()
	err = a.run(ctx)
	a.account(p.result)
	for _, path := range p.result.Damaged {
		forgetVerified(d.path, filepath.Base(path))
	}
	if errors.Is(err, errDone) {
		partial.discard = true
		return nil
	}
	if err == nil && ctx.Err() != nil {
		err = wait.Err(ctx) // the caller gave up: do not publish
	}
	if err != nil {
		// What a source has given stays for the next attempt, unless there is nothing,
		// or it was wrong, or space is what lacks. ext4 keeps the space that it
		// could get.
		partial.discard = a.downloaded == 0 && !a.resumed || sys.IsWrite(err) || errors.As(err, new(*SpaceError)) ||
			errors.Is(err, tarball.ErrDigest) || errors.Is(err, tarball.ErrSize) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrOtherImage)
		return err
	}
	timing.Begin(p.Observer, timing.Publish)
	if err := d.setAccess(partial.file); err != nil {
		return err
	}
	if p.repairs != nil {
		if err := p.keep(partial.file); err != nil {
			return err
		}
	}
	file := atomicfile.New(partial.file, p.path)
	if err := file.Flush(); err != nil {
		partial.discard = true // nothing that was written can be believed any more
		return err
	}
	// Where locks do not work another one may have published meanwhile. The flush takes
	// longest, and so it is looked for after it.
	if done, err := p.isDone(ctx); done || err != nil {
		partial.discard = done || errors.Is(err, ErrReplaced) || errors.Is(err, ErrOtherImage)
		return err
	}
	timing.Begin(p.Observer, timing.Publish)
	if d.grace > 0 {
		keepPrevious(p.path, d.now())
	}
	err = file.Commit()
	if partial.discard = file.Committed(); !partial.discard || err != nil {
		return err
	}
	p.result.Outcome = Stocked
	if sys.OnlyTrustedWrite(begun) {
		p.recordVerified(ctx, begun, a.since)
	}
	info := &tarball.Info{Image: img, Provenance: p.Provenance, Layout: layout}
	if was, _ := readRecord(d.path, p.name); p.Group != "" && p.Group != groupOf(p.name, info, was) {
		p.result.Unrecorded = p.recorded(ctx, setUsed(d.path, p.name, info, tarball.Run{}, p.Group, d.now()))
	}
	return nil
}

// recordVerified records that all of the tarball that was just published, as the file that it
// was when it was begun, was hashed since a time.
func (p *put) recordVerified(ctx context.Context, begun os.FileInfo, since time.Time) {
	if state, known := stateAt(p.path); known && sys.Inode(begun) == state.Inode {
		p.dir.recordVerified(ctx, p.name, verification{p.digest, state, since})
	}
}

// keep gives a file the mode and the time of the one that it repairs: it is not newer.
func (p *put) keep(f *os.File) error {
	p.result.Damaged = slices.DeleteFunc(p.result.Damaged, func(path string) bool { return path == p.path })
	if p.dir.mode == 0 {
		if err := f.Chmod(p.repairs.Mode().Perm()); err != nil {
			return fmt.Errorf("set the tarball's mode: %w", err)
		}
	}
	if err := os.Chtimes(f.Name(), time.Time{}, p.repairs.ModTime()); err != nil {
		return fmt.Errorf("set the tarball's time: %w", err)
	}
	return nil
}

// current opens the tarball at path, nil if there is none. What is there and is
// no complete tarball counts as absent, and so does a symbolic link, whose target
// may change at any time; a directory is an error, since no rename can replace it.
func (d *Dir) current(path string) (*tarball.Tarball, os.FileInfo, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, fmt.Errorf("%s is a directory: a tarball of this name cannot be stocked", path)
	case !info.Mode().IsRegular():
		return nil, nil, nil
	}
	t, info, err := openTarball(path, 0)
	if err != nil {
		return nil, nil, nil // unreadable is absent: Put replaces it, or says why it cannot
	}
	return t, info, nil
}
