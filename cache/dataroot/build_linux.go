package dataroot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/atomicfile"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/wait"
)

// canMount returns an error where mounting cannot succeed.
func canMount() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: mounting a file system needs root", ErrUnsupported)
	}
	return nil
}

// make makes the template called name from the one before, or from nothing if that is nil.
func (b *builder) make(ctx context.Context, name string, before *os.File) error {
	f, err := atomicfile.Create(filepath.Join(b.dir.path, name), 0o644)
	if err != nil {
		return err
	}
	defer f.Discard()
	size := b.dir.options.Size
	if before != nil {
		size = b.before.Size
		if _, _, err := copyTemplate(ctx, f.File, before, size, false); err != nil {
			return err
		}
	} else if err := makeFileSystem(ctx, f.File, size); err != nil {
		return err
	}
	b.record.OS, b.record.Architecture = runtime.GOOS, runtime.GOARCH
	if info, ok := debug.ReadBuildInfo(); ok {
		b.record.Tool = info.Main.Path + " " + info.Main.Version
	}
	b.record.FileSystem, b.record.Size = fileSystem, size
	b.record.Made = time.Now().UTC().Truncate(time.Second)
	if err := onDataRoot(ctx, b.engine, f.File, size, b.dir.options.Limit, b.load, b.finish); err != nil {
		return err
	}
	sys.AtStep("check")
	if err := checkFileSystem(ctx, f.File); err != nil {
		return err
	}
	end, err := b.record.encode()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(end, size); err != nil {
		return err
	}
	return f.Commit()
}

// finish leaves in a data root what clones shall have, when the engine has ended.
func (b *builder) finish(root string) error {
	if err := b.engine.holds(root); err != nil {
		return err
	}
	if err := b.engine.tidy(root); err != nil {
		return err
	}
	text, err := json.Marshal(&b.record)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, RecordName), text, 0o644)
}

// onDataRoot runs an engine on the data root in a file, in namespaces of its own, calls work with
// it, and finish when it has ended.
func onDataRoot(ctx context.Context, e Engine, f *os.File, size int64, limit time.Duration, work func(context.Context, loader.Engine) error, finish func(root string) error) error {
	private, removePrivate, err := makePrivate()
	if err != nil {
		return err
	}
	defer removePrivate()
	root := filepath.Join(private, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	var loop int
	var file unix.LoopInfo64
	keep := append(filepath.SplitList(os.Getenv("PATH")), private)
	if program, err := exec.LookPath(e.program()); err == nil {
		keep = append(keep, program)
	}
	err = inNamespace(keep, func() (err error) {
		sys.AtStep("mount")
		if loop, err = mountFile(f, size, root); err != nil {
			return err
		}
		if device, info := loopOf(loop); device != nil {
			file = info
			_ = device.Close()
		}
		defer func() { err = errors.Join(err, unmountAll(ctx, root)) }()
		sys.AtStep("start")
		engine, err := e.start(ctx, root, private, limit)
		if err != nil {
			return err
		}
		sys.AtStep("load")
		err = work(ctx, engine.engine)
		sys.AtStep("stop")
		if err := errors.Join(err, engine.stop()); err != nil {
			return err
		}
		sys.AtStep("finish")
		if err := finish(root); err != nil {
			return err
		}
		return trim(root)
	})
	if err == nil && !detached(ctx, loop, file) {
		err = fmt.Errorf("%w: another mount namespace still has the file system", ErrInUse)
	}
	return err
}

// unmountAll unmounts what is mounted at a path and below.
func unmountAll(ctx context.Context, at string) error {
	m, err := cloneAt(at)
	if err != nil {
		return err
	}
	return unmountTree(context.WithoutCancel(ctx), m)
}

// makeFileSystem makes an empty file system in a file. What is zero is a hole: the inode tables
// too, which the kernel takes for initialised. It has no journal, which would be written for each
// change, and grow a template with each refresh: after a crash nobody reads a clone, and what a
// build has begun is not published.
func makeFileSystem(ctx context.Context, f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("make a sparse file of %d bytes: %w", size, err)
	}
	return runTool(ctx, f, "mkfs.ext4", []string{"-q", "-F", "-b", fmt.Sprint(blockSize), "-m", "0",
		"-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"}, fmt.Sprint(size/blockSize))
}

// checkFileSystem checks a file system that is not mounted.
func checkFileSystem(ctx context.Context, f *os.File) error {
	return runTool(ctx, f, "e2fsck", []string{"-f", "-n"})
}

// runTool runs a program of e2fsprogs with flags, an open file and more arguments: what the
// file's name leads to may be something else.
func runTool(ctx context.Context, f *os.File, name string, flags []string, more ...string) error {
	path, err := exec.LookPath(name)
	if err != nil { // sbin is not on every user's PATH
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if p, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
				path, err = p, nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w: install e2fsprogs", ErrUnsupported, err)
	}
	cmd := exec.CommandContext(ctx, path, slices.Concat(flags, []string{"/dev/fd/3"}, more)...)
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// copyTemplate makes the first size bytes of dst those of a template, and dst that long.
func copyTemplate(ctx context.Context, dst, src *os.File, size int64, noCopy bool) (way Way, copied int64, err error) {
	err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	if err == nil {
		return Reflink, 0, dst.Truncate(size)
	}
	if noCopy {
		return "", 0, fmt.Errorf("%w: blocks cannot be shared: %w: keep templates and clones on one XFS (mkfs.xfs -m reflink=1) or btrfs", ErrUnsupported, err)
	}
	if err := dst.Truncate(size); err != nil {
		return Copy, 0, fmt.Errorf("make a sparse file of %d bytes: %w", size, err)
	}
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || from >= size { // only holes follow
			break
		}
		if err != nil {
			return Copy, copied, fmt.Errorf("find the data of %s: %w", src.Name(), err)
		}
		to, err := unix.Seek(int(src.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return Copy, copied, fmt.Errorf("find the holes of %s: %w", src.Name(), err)
		}
		to = min(to, size)
		if from == 0 && to == size { // the file system does not say where holes are
			n, err := copyData(ctx, dst, src, size)
			return Copy, n, err
		}
		if _, err := sys.CopyRange(ctx, dst, from, src, from, to-from); err != nil {
			return Copy, copied, fmt.Errorf("copy %s: %w", src.Name(), err)
		}
		copied += to - from
		at = to
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return Copy, copied, err
	}
	return Copy, copied, nil
}

// copyData copies what is not zero.
func copyData(ctx context.Context, dst, src *os.File, size int64) (copied int64, err error) {
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(buf)) {
		if err := wait.Err(ctx); err != nil {
			return copied, err
		}
		buf = buf[:min(int64(len(buf)), size-at)]
		if _, err := io.ReadFull(io.NewSectionReader(src, at, int64(len(buf))), buf); err != nil {
			return copied, fmt.Errorf("read %s: %w", src.Name(), err)
		}
		if bytes.Equal(buf, zeros[:len(buf)]) {
			continue
		}
		if _, err := dst.WriteAt(buf, at); err != nil {
			return copied, fmt.Errorf("copy %s: %w", src.Name(), err)
		}
		copied += int64(len(buf))
	}
	return copied, nil
}
