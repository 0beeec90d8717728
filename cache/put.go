package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// An Outcome says what [Dir.Put] did. Its text is the one of the examples'
// -json output.
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

// A Result tells what [Dir.Put] did. All counts are in bytes.
type Result struct {
	Outcome Outcome
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
	// Damaged are the paths of tarballs of which a layer was wrong. It was fetched
	// from the source instead; the tarballs are as before.
	Damaged []string
}

// PutOptions of [Dir.Put]. The zero value of each field works.
type PutOptions struct {
	// Provenance is recorded in the tarball.
	Provenance Provenance
	// Progress is as in [FillOptions].
	Progress func(Progress)
	// Force lets an older build run replace the tarball of a newer one.
	Force bool
	// Rewrite writes the tarball even when it seems to be there, for a layer of it
	// is damaged, which its beginning does not tell: intact layers are taken from
	// it, the others come from the source. Default: it is [Unchanged].
	Rewrite bool
	// Verify reads and hashes all of a tarball that seems to be there, as
	// [Tarball.Verify] does. If a byte is wrong, or cannot be read, it is written
	// anew, as with Rewrite. Default: its beginning and its size are believed.
	Verify bool
	// TakeOver makes the writer of an older build run that is still at work give
	// up, within seconds: its Put returns [ErrTakenOver]. What it has fetched is
	// used if it is of the same image. Default: wait for it.
	TakeOver bool

	repairs *Tarball // what must be there, and be no other; nil: anything
	damaged *Tarball // what Verify has found to be so
}

// Put stocks img as the tarball called name, which must end in .tar and must
// not begin with a dot. The layers come from tarballs in the directory that have
// them, and from src.
//
// When the tarball is there already, with the same manifest digest and
// reference and the size that its layout needs, nothing is done but to note that
// it was used, and the outcome is [Unchanged]. When what is there comes from a
// newer build run, the outcome is [Superseded]. Otherwise it is written to a
// partial file, verified, flushed, and renamed; what was under the name stays
// until then, and stays when anything fails. Put may be called concurrently, for
// the same name too: one works, the others wait for it and look again.
//
// When it is interrupted, by a crash, a signal or a source that fails, the
// partial file stays, and the next Put of the same image under the same name
// downloads only what is missing.
//
// The result is never nil. The errors: [ErrName]; [*RoomError]; [ErrTakenOver];
// those of [Engine.Fill]; those of the file system.
func (d *Dir) Put(ctx context.Context, name string, img *Image, src BlobSource, o *PutOptions) (*Result, error) {
	var own PutOptions
	if o != nil {
		own = *o
	}
	o = &own
	path, err := d.tarballPath(name)
	if err != nil {
		return &Result{}, err
	}
	layout, err := NewLayout(img, o.Provenance)
	if err != nil {
		return &Result{}, fmt.Errorf("plan %s: %w", name, err)
	}
	result := &Result{Path: path, Total: layout.Size()}
	if done, err := d.isDone(ctx, name, path, img, o, result); done || err != nil {
		return result, err
	}
	lock, ctx, err := d.lock(ctx, name, o.Provenance.Run, o.TakeOver)
	if err != nil {
		return result, d.spaceError(err, layout)
	}
	defer lock.unlock()
	// Whoever had the lock may have done it.
	if done, err := d.isDone(ctx, name, path, img, o, result); done || err != nil {
		return result, err
	}
	err = d.write(ctx, name, path, img, layout, src, o, result)
	if err == nil && result.Outcome == "" {
		result.Outcome = Stocked
	}
	return result, d.spaceError(err, layout)
}

// spaceError says how much space was needed when there was not enough.
func (d *Dir) spaceError(err error, layout *Layout) error {
	if errors.As(err, new(*RoomError)) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return fmt.Errorf("not enough space in %s for the %d bytes of the tarball: %w", d.path, layout.Size(), err)
}

// isDone tells whether nothing is to be done, and fills in the result.
func (d *Dir) isDone(ctx context.Context, name, path string, img *Image, o *PutOptions, result *Result) (bool, error) {
	current, err := d.current(path)
	if err == nil && o.repairs != nil && (current == nil || !os.SameFile(current.file, o.repairs.file)) {
		err = fmt.Errorf("%s: %w", path, ErrReplaced)
	}
	if current == nil || err != nil {
		return false, err
	}
	if current.holds(img.Digest(), img.Reference()) {
		if o.Rewrite {
			return false, nil
		}
		if o.Verify {
			if err := d.prove(ctx, current, o); err != nil {
				return false, err
			} else if o.damaged != nil {
				return false, nil
			}
		}
		sweepPartials(d.path, name, d.now())
		sweepRetired(d.path, name, d.sweepGrace(), d.now())
		setMark(d.path, name, current, o.Provenance.Run, d.now())
		result.Outcome, result.Total = Unchanged, current.Layout.Size()
		return true, nil
	}
	was, _ := readMark(d.path, name)
	if current.runWith(was).newerThan(o.Provenance.Run) && !o.Force {
		result.Outcome, result.Total = Superseded, current.Layout.Size()
		return true, nil
	}
	return false, nil
}

// prove notes in o whether what is there is damaged. The error is that of ctx.
func (d *Dir) prove(ctx context.Context, current *Tarball, o *PutOptions) error {
	if o.damaged != nil && os.SameFile(current.file, o.damaged.file) {
		return nil // as it was
	}
	o.damaged = nil
	err := current.Verify(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		o.damaged = current
	}
	if err != nil && !errors.Is(err, ErrReplaced) { // else what is there now will be looked at
		d.log.Warn("a tarball is damaged, it is written anew", "tarball", current.Path, "error", err)
	}
	return nil
}

// write fills a partial file, this run's or one that an earlier run left, and
// publishes it.
func (d *Dir) write(ctx context.Context, name, path string, img *Image, layout *Layout, src BlobSource, o *PutOptions, result *Result) error {
	p, err := openPartial(d.path, name, img.digest, layout)
	if err != nil {
		return fmt.Errorf("create a partial file for %s: %w", path, err)
	}
	defer p.close()
	// Not before: what is to be resumed may be as old as what is to be swept.
	sweepPartials(d.path, name, d.now())
	sweepRetired(d.path, name, d.sweepGrace(), d.now())
	s := newSupply(d, p, layout, src, o)
	defer s.retire()
	err = s.bring(ctx)
	s.account(result)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // the caller gave up: do not publish
	}
	if err != nil {
		// What a source has given stays for the next run, unless there is nothing,
		// or it was wrong, or space is what lacks. ext4 keeps the space that it
		// could get.
		p.discard = s.downloaded == 0 && !s.resumed || isWrite(err) || errors.As(err, new(*RoomError)) ||
			errors.Is(err, ErrBlobDigest) || errors.Is(err, ErrBlobSize)
		return err
	}
	if err := d.setAccess(p.file); err != nil {
		return err
	}
	if o.repairs != nil && d.mode == 0 {
		if err := p.file.Chmod(o.repairs.file.Mode().Perm()); err != nil {
			return fmt.Errorf("set the tarball's mode: %w", err)
		}
	}
	// Where locks do not work another one may have published meanwhile.
	if done, err := d.isDone(ctx, name, path, img, o, result); done || err != nil {
		p.discard = done || errors.Is(err, ErrReplaced)
		return err
	}
	if d.grace > 0 {
		retire(path, d.now())
	}
	p.discard, err = publish(p.file, path)
	return err
}

// current returns the tarball at path, nil if there is none. What is there and is
// no complete tarball counts as absent, and so does a symbolic link, whose target
// is nobody's promise; a directory is an error, since no rename can replace it.
func (d *Dir) current(path string) (*Tarball, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: a tarball of this name cannot be stocked", path)
	case !info.Mode().IsRegular():
		return nil, nil
	}
	t, err := ReadTarball(path)
	if err != nil {
		return nil, nil // unreadable is absent: Put replaces it, or says why it cannot
	}
	return t, nil
}
