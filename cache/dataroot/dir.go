package dataroot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// fileSystem is the one that templates have inside.
const fileSystem = "ext4"

var (
	// ErrUnsupported is wrapped where this machine or process cannot do it: another system
	// than Linux, no root, no loop devices, a program that is missing.
	ErrUnsupported = errors.New("not possible here")
	// ErrNoTemplate is wrapped when there is no template of the name, or of the engine.
	ErrNoTemplate = errors.New("no such template")
	// ErrNotClone is wrapped when what is mounted was not mounted by [Dir.Clone].
	ErrNotClone = errors.New("not a clone of a data root")
	// ErrInUse is wrapped when a process uses what shall go.
	ErrInUse = errors.New("in use")
	// ErrWrong is wrapped when the engine does not have what a template's record says.
	ErrWrong = errors.New("the data root does not hold what its record says")
)

// Options of [Open]. The zero value of each field works.
type Options struct {
	// Size is the length of the file systems that are made, in bytes: what the engine has in
	// a clone, images and containers together. The file is sparse. Default: 256 GiB. At least
	// 64 MiB. A template of another size is built from nothing if it is given.
	Size int64
	// Below is a directory on the file system that has the bytes of clones. Default: that of the
	// templates. Blocks are shared only within one file system.
	Below string
	// Limit is how long an engine may take to start, and to stop. Default: 2 minutes.
	Limit time.Duration
	// Logger logs what goes otherwise than expected. Default: silent.
	Logger *slog.Logger
}

// A Dir is a directory with templates, mostly the one with the tarballs. It is safe for
// concurrent use, by any number of processes on any number of machines.
type Dir struct {
	path    string
	options Options
	isSized bool // Options.Size was given
	log     *slog.Logger
}

const (
	defaultSize  = 256 << 30
	leastSize    = 64 << 20
	defaultLimit = 2 * time.Minute
)

// Open returns the templates in a directory, which must exist.
func Open(path string, o *Options) (*Dir, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("dataroot: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("dataroot: %s is no directory", path)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("dataroot: %w", err)
	}
	d := &Dir{path: path}
	if o != nil {
		d.options = *o
	}
	d.isSized = d.options.Size != 0
	d.options.Size, d.options.Limit = cmp.Or(d.options.Size, defaultSize), cmp.Or(d.options.Limit, defaultLimit)
	d.options.Below = cmp.Or(d.options.Below, path)
	d.options.Size -= d.options.Size % blockSize
	if d.options.Size < leastSize {
		return nil, fmt.Errorf("dataroot: Options.Size is %d bytes: it must be %d or more", d.options.Size, leastSize)
	}
	if d.log = d.options.Logger; d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}

// Path returns the directory's path.
func (d *Dir) Path() string { return d.path }

// A Template is a file with an engine's data root.
type Template struct {
	// Name is the file's, without a path.
	Name string
	// Record says what it holds; nil if Err is not.
	Record *Record
	// Allocated is how many bytes of the disk the file has. Space that it shares counts.
	Allocated int64
	// LastUsed is when it was built, refreshed, found to be unchanged, or cloned: the file's
	// modification time. When it was built is in Record.
	LastUsed time.Time
	// Err says why the file cannot be used: it wraps [ErrNotTemplate] or an error in reading.
	Err error
}

// Base returns what [Dir.Build] was called with, of a template with a record; "" if the file has
// another name than Build gave it.
func (t *Template) Base() string {
	base, ok := strings.CutSuffix(t.Name, templateName("", t.Record.Engine, t.Record.OS, t.Record.Architecture))
	if !ok {
		return ""
	}
	return base
}

// IsOfThisPlatform reports whether a template with a record was made on a machine like this one.
func (t *Template) IsOfThisPlatform() bool {
	return t.Record.OS == runtime.GOOS && t.Record.Architecture == runtime.GOARCH
}

// List returns the templates, sorted by name. The error is one of reading the directory.
func (d *Dir) List() ([]Template, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("dataroot: %w", err)
	}
	var all []Template
	for _, e := range entries {
		if name := e.Name(); checkName(name) == nil {
			if t, err := d.Get(name); !errors.Is(err, ErrNoTemplate) { // gone meanwhile
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// Get returns the template called name. The error is also its Err; it wraps [ErrNoTemplate]
// when there is none.
func (d *Dir) Get(name string) (Template, error) {
	f, t, err := d.open(name)
	if err != nil {
		return t, err
	}
	return t, f.Close()
}

// open opens a template for reading.
func (d *Dir) open(name string) (*os.File, Template, error) {
	t := Template{Name: name}
	fail := func(err error) (*os.File, Template, error) {
		t.Err = fmt.Errorf("dataroot: %s: %w", filepath.Join(d.path, name), err)
		return nil, t, t.Err
	}
	if err := checkName(name); err != nil {
		return fail(err)
	}
	f, err := sys.OpenToRead(filepath.Join(d.path, name), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fail(fmt.Errorf("%w: %w", ErrNoTemplate, err))
	}
	if err != nil {
		return fail(err)
	}
	info, err := f.Stat()
	if err == nil {
		t.Allocated, t.LastUsed = sys.Allocated(info), info.ModTime()
		// Who may write to it may let the kernel read a file system that it made.
		if err = sys.IsAlone(info); err != nil || !sys.OnlyTrustedWrite(info) {
			err = fmt.Errorf("%w: it is not a regular file that root or this user alone may write", ErrNotTemplate)
		}
	}
	if err == nil {
		t.Record, err = readRecord(f, info.Size())
	}
	if err != nil {
		_ = f.Close()
		return fail(err)
	}
	return f, t, nil
}

// checkName returns an error for what cannot be a template's name.
func checkName(name string) error {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") || !strings.HasSuffix(name, suffix) || len(name) > 200 {
		return fmt.Errorf("%w: %q is no name of one: it ends in %s, and has no / and at most 200 bytes", ErrNoTemplate, name, suffix)
	}
	return nil
}

// Find returns the template for a base name and an engine. Where the machine's engine has another
// version than the templates that are there, the error wraps [ErrNoTemplate] and names these.
func (d *Dir) Find(ctx context.Context, base string, e Engine) (Template, error) {
	version, err := e.Record(ctx)
	if err != nil {
		return Template{}, err
	}
	t, err := d.Get(TemplateName(base, version))
	if !errors.Is(err, ErrNoTemplate) {
		return t, err
	}
	others, listErr := d.Of(base)
	if listErr != nil || len(others) == 0 {
		return t, err
	}
	names := make([]string, len(others))
	for i, o := range others {
		names[i] = o.Name
	}
	return t, fmt.Errorf("%w: there is %s: build one for %s %s, or name one of these", err, strings.Join(names, ", "), version.Kind, version.Version)
}

// Of returns the templates with a base name, of every engine, sorted by name.
func (d *Dir) Of(base string) ([]Template, error) {
	all, err := d.List()
	return slices.DeleteFunc(all, func(t Template) bool {
		return t.Record == nil || t.Base() != base || !t.IsOfThisPlatform()
	}), err
}

// Remove removes a template. Clones of it go on. The error wraps [ErrInUse] while one is being
// made of it.
func (d *Dir) Remove(name string) error { return d.remove(name, false) }

func (d *Dir) remove(name string, dryRun bool) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("dataroot: %w", err)
	}
	path := filepath.Join(d.path, name)
	f, err := sys.OpenToLock(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoTemplate, err)
	}
	if err != nil {
		return fmt.Errorf("dataroot: %w", err)
	}
	defer f.Close()
	if held, _ := sys.TryLock(f); held {
		return fmt.Errorf("dataroot: %s: %w: a clone is being made of it", path, ErrInUse)
	}
	if !sys.IsAt(f, path) {
		return fmt.Errorf("dataroot: %s: %w: it was replaced just now, or is a link", path, ErrInUse)
	}
	if dryRun {
		return nil
	}
	return sys.Unlink(path)
}

// lockSuffix is what the names of the locks of builds end with, .NAME.dataroot.lock.
const lockSuffix = ".lock"

// Sweep removes what builds have left that were killed: files in the directory, and directories
// below [os.TempDir]. Clones leave nothing.
func (d *Dir) Sweep() {
	entries, _ := os.ReadDir(d.path)
	var left []string
	for _, e := range entries {
		isTemporary := strings.Contains(e.Name(), suffix+".") && strings.HasSuffix(e.Name(), ".tmp")
		if strings.HasPrefix(e.Name(), ".") && (isTemporary || strings.HasSuffix(e.Name(), suffix+lockSuffix)) {
			left = append(left, filepath.Join(d.path, e.Name()))
		}
	}
	sys.SweepAbandoned(left, time.Now())
	sweepPrivate()
}

// privatePrefix is what the names of directories for an engine's sockets begin with: short, for
// a socket's path has 107 bytes at most (unix(7)).
const privatePrefix = "dcroot-"

// makePrivate makes a directory for an engine's sockets. remove removes it.
func makePrivate() (path string, remove func(), err error) {
	if path, err = os.MkdirTemp("", privatePrefix); err != nil {
		return "", nil, err
	}
	lock, err := sys.CreateLocked(filepath.Join(path, "lock"), 0o600)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(path))
	}
	return path, func() {
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}, nil
}

func sweepPrivate() {
	paths, _ := filepath.Glob(filepath.Join(os.TempDir(), privatePrefix+"*"))
	for _, path := range paths {
		lock, err := sys.OpenOwn(filepath.Join(path, "lock"), 0)
		if errors.Is(err, fs.ErrNotExist) { // its maker was killed before, if it is old
			if info, err := os.Lstat(path); err == nil && sys.Age(info.ModTime(), time.Now()) > sys.AbandonedAfter {
				_ = os.RemoveAll(path)
			}
		}
		if err != nil {
			continue
		}
		if held, err := sys.TryLock(lock); !held && err == nil {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}
