package dataroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/timing"
)

// CloneOptions of [Dir.Clone]. The zero value of each field works.
type CloneOptions struct {
	// Engine, when not nil, is the program that will run on the clone: the error wraps
	// [ErrNoTemplate] if it has another version than the one that built the template.
	Engine *Engine
	// NoCopy makes it fail where blocks cannot be shared: a copy of a large template takes
	// longer than a load. The error wraps [ErrUnsupported].
	NoCopy bool
	// Observer, when not nil, is notified of what Clone does: [timing.Look], [timing.Clone],
	// [timing.Mount]. The last phase has ended when Clone returns.
	Observer timing.Observer
}

// A Way is how a clone got its bytes.
type Way string

// The ways.
const (
	// Reflink shares all blocks with the template, until one of them is written.
	Reflink Way = "reflink"
	// Copy copies what is no hole, where the file system cannot share blocks or the clone is on
	// another one.
	Copy Way = "copy"
)

// A Clone is a writable copy of a template's data root that is mounted. Its file has no name:
// when the clone is unmounted, by [Discard] or because the machine stops, nothing is left of
// it.
type Clone struct {
	// At is where it is mounted: what the engine gets as its data root.
	At string
	// Template is what it is of; only its Record where [Clones] found the clone.
	Template Template
	// Way is how it got its bytes, Copied how many were copied; unknown where [Clones] found it.
	Way    Way
	Copied int64
	// Took is how long copying or sharing, and mounting, took.
	Took time.Duration
}

// Clone mounts a writable copy of a template at a directory, which must exist and be empty. The
// engine that runs on it has the template's images. Any number of clones of one template, and
// the template's own refresh, go on side by side. It must be root, and a job's engine is
// stopped before [Discard].
//
// A clone is no template: it has no name and no record, so that nothing is cloned that is being
// written. But a directory in a clone is one like others: clones are mounted there, and
// templates kept.
//
// The errors wrap [ErrNoTemplate], [ErrNotTemplate], [ErrUnsupported]; after an error nothing is
// mounted.
func (d *Dir) Clone(ctx context.Context, name, at string, o *CloneOptions) (*Clone, error) {
	if o == nil {
		o = &CloneOptions{}
	}
	timing.Begin(o.Observer, timing.Look)
	defer timing.End(o.Observer)
	c, err := d.clone(ctx, name, at, o)
	if err != nil {
		return nil, fmt.Errorf("dataroot: clone %s at %s: %w", name, at, err)
	}
	return c, nil
}

func (d *Dir) clone(ctx context.Context, name, at string, o *CloneOptions) (*Clone, error) {
	begun := time.Now()
	if err := canMount(); err != nil {
		return nil, err
	}
	dir, at, err := openMountPoint(at)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	src, t, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	sys.LockShared(src) // see Remove
	if o.Engine != nil {
		if err := t.Record.isFor(ctx, *o.Engine); err != nil {
			return nil, err
		}
	}
	f, err := createNameless(d.options.Below)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the loop device keeps it
	c := &Clone{At: at, Template: t}
	timing.Begin(o.Observer, timing.Clone)
	sys.AtStep("copy")
	if c.Way, c.Copied, err = copyTemplate(ctx, f, src, t.Record.Size, o.NoCopy); err != nil {
		return nil, err
	}
	timing.Begin(o.Observer, timing.Mount)
	sys.AtStep("mount")
	if err := mountAt(ctx, f, t.Record.Size, dir, at); err != nil {
		return nil, err
	}
	sys.AtStep("done")
	d.used(src)
	c.Took = time.Since(begun)
	return c, nil
}

// openMountPoint opens an empty directory to mount something at, and returns the path that the
// kernel calls it by. What its path leads to later may be something else.
func openMountPoint(path string) (dir *os.File, at string, err error) {
	if at, err = mountPoint(path); err != nil {
		return nil, "", err
	}
	if dir, err = os.Open(at); err != nil {
		return nil, "", err
	}
	names, err := dir.Readdirnames(1)
	if err == nil {
		err = fmt.Errorf("the directory is not empty: it has %s", names[0])
	} else if errors.Is(err, io.EOF) {
		return dir, at, nil
	}
	_ = dir.Close()
	return nil, "", err
}

// mountPoint returns the path that the kernel calls a directory by.
func mountPoint(at string) (string, error) {
	at, err := filepath.Abs(at)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(at)
}

// used records that a template was used, for [Template.LastUsed].
func (d *Dir) used(f *os.File) {
	if err := sys.SetTime(f, time.Now()); err != nil {
		d.log.Warn("the use of a template is not recorded", "template", f.Name(), "error", err)
	}
}

// Discard unmounts the clone at a directory, and what is mounted below it, and so removes it. What
// is no clone stays: the error wraps [ErrNotClone]. While a process uses the clone, or another
// mount namespace has it, the error wraps [ErrInUse]; what was mounted below it is gone then.
func Discard(ctx context.Context, at string) error {
	path, err := mountPoint(at)
	if err == nil {
		err = discard(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("dataroot: discard %s: %w", at, err)
	}
	return nil
}

// Clones returns the clones that this process can see mounted, in the order in which they were.
func Clones() ([]Clone, error) { return clones() }
