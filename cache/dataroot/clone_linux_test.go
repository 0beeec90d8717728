package dataroot_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/internal/testtool"
)

// built builds a template of one small image with containerd, the engine that starts fastest.
func (w *world) built(t *testing.T) dataroot.Template {
	t.Helper()
	testtool.Need(t, "containerd")
	one := w.stock("one_main.tar", "registry.example/one:main", "a", "b")
	r, err := w.root.Build(context.Background(), "one_main", dataroot.Engine{Kind: dataroot.Containerd}, []*tarball.Tarball{one}, nil)
	require.NoError(t, err)
	return r.Template
}

// sum is of the data of a file and where it is: most of a template is a hole.
func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	h := sha256.New()
	for at := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		require.NoError(t, err)
		at, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		require.NoError(t, err)
		fmt.Fprintln(h, from, at)
		_, err = io.Copy(h, io.NewSectionReader(f, from, at-from))
		require.NoError(t, err)
	}
}

// free returns how many bytes of a file system are free.
func free(t *testing.T, at string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	syscall.Sync()
	require.NoError(t, syscall.Statfs(at, &s))
	return int64(s.Bfree) * s.Bsize
}

func TestClone(t *testing.T) {
	for kind, way := range map[string]dataroot.Way{"xfs": dataroot.Reflink, "btrfs": dataroot.Reflink, "ext4": dataroot.Copy} {
		t.Run(kind, func(t *testing.T) {
			ctx := context.Background()
			w := newWorld(t, kind)
			template := w.built(t)
			path := filepath.Join(w.root.Path(), template.Name)
			before, left := sum(t, path), free(t, w.at)

			c := w.clone(template.Name)
			assert.Equal(t, way, c.Way)
			if way == dataroot.Reflink {
				assert.LessOrEqual(t, left-free(t, w.at), int64(1<<20))
				assert.Zero(t, c.Copied)
			}
			other := w.clone(template.Name)
			all := ownClones(t)
			require.Len(t, all, 2)
			assert.Equal(t, template.Record.Images, all[1].Template.Record.Images)

			// One does not see what the other writes, and the template is as it was.
			require.NoError(t, os.WriteFile(filepath.Join(c.At, "file"), make([]byte, 10<<20), 0o600))
			assert.NoFileExists(t, filepath.Join(other.At, "file"))
			syscall.Sync()
			assert.Equal(t, before, sum(t, path))

			// Clones go on when the template is replaced, and when it is removed.
			newer := w.stock("one_main.tar", "registry.example/one:main", "a", "b", "c")
			_, err := w.root.Build(ctx, "one_main", dataroot.Engine{Kind: dataroot.Containerd}, []*tarball.Tarball{newer}, nil)
			require.NoError(t, err)
			require.NoError(t, w.root.Remove(template.Name))
			run(t, "find", c.At, "-xdev", "-type", "f", "-exec", "cat", "{}", "+")

			require.NoError(t, dataroot.Discard(ctx, c.At))
			require.NoError(t, dataroot.Discard(ctx, other.At))
			assert.ErrorIs(t, dataroot.Discard(ctx, c.At), dataroot.ErrNotClone)
			entries, err := os.ReadDir(w.root.Path())
			require.NoError(t, err)
			for _, e := range entries {
				assert.NotContains(t, e.Name(), ".tmp")
			}

			_, err = w.root.Clone(ctx, template.Name, mountPoint(t), nil)
			assert.ErrorIs(t, err, dataroot.ErrNoTemplate)
		})
	}
}

func TestCloneIsRefused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "ext4")
	template := w.built(t)
	at := mountPoint(t)
	_, err := w.root.Clone(ctx, template.Name, at, &dataroot.CloneOptions{NoCopy: true})
	assert.ErrorIs(t, err, dataroot.ErrUnsupported)
	_, err = w.root.Clone(ctx, template.Name, w.root.Path(), nil)
	assert.ErrorContains(t, err, "not empty")
	_, err = w.root.Clone(ctx, template.Name, at+"/none", nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = w.root.Clone(ctx, template.Name, at, &dataroot.CloneOptions{Engine: &dataroot.Engine{Kind: dataroot.Docker, Program: fakeVersion(t, "Docker version 1.2.3, build 0")}})
	assert.ErrorIs(t, err, dataroot.ErrNoTemplate)
	assert.ErrorContains(t, err, "1.2.3")

	// A file system that is none, behind a right record.
	path := filepath.Join(w.root.Path(), template.Name)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 512), 1024+0x40)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = w.root.Clone(ctx, template.Name, at, nil)
	assert.Error(t, err)
	requireNoClones(t)
}

// The directory that was found to be empty is the one that is mounted at, whatever its path leads
// to by then.
func TestCloneAtWhatIsReplaced(t *testing.T) {
	w := newWorld(t, "xfs")
	template := w.built(t)
	for name, replace := range map[string]func(at, other string){
		"renamed": func(at, other string) {
			require.NoError(t, os.Rename(at, filepath.Join(other, "moved")))
			require.NoError(t, os.Mkdir(at, 0o700))
		},
		"a link": func(at, other string) {
			require.NoError(t, os.Remove(at))
			require.NoError(t, os.Symlink(other, at))
		},
		"mounted at": func(at, other string) {
			run(t, "mount", "-t", "tmpfs", "over", at)
			require.NoError(t, os.WriteFile(filepath.Join(at, "file"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			at, other := filepath.Join(t.TempDir(), "at"), t.TempDir()
			require.NoError(t, os.Mkdir(at, 0o700))
			before := sys.AtStep
			defer func() { sys.AtStep = before }()
			sys.AtStep = func(step string) {
				if step == "mount" {
					replace(at, other)
				}
			}
			_, err := w.root.Clone(context.Background(), template.Name, at, nil)
			require.Error(t, err)
			assert.Zero(t, loops(t, w.root.Path(), 0))
			if name == "mounted at" {
				assert.FileExists(t, filepath.Join(at, "file"))
				run(t, "umount", at)
			}
		})
	}
}

// What a clone has become cannot be cloned, by whatever name; and in a clone there may be clones,
// and templates of others.
func TestCloneOfAClone(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "xfs")
	template := w.built(t)
	c := w.clone(template.Name)
	require.NoError(t, os.WriteFile(filepath.Join(c.At, "file"), []byte("written"), 0o600))

	inside, err := dataroot.Open(c.At, nil)
	require.NoError(t, err)
	_, err = inside.Clone(ctx, template.Name, mountPoint(t), nil)
	assert.ErrorIs(t, err, dataroot.ErrNoTemplate)
	_, err = w.root.Clone(ctx, c.At, mountPoint(t), nil)
	assert.ErrorIs(t, err, dataroot.ErrNoTemplate)

	// Its device as a template: as a link, as a device, and its bytes.
	device := strings.TrimSpace(run(t, "findmnt", "-n", "-o", "SOURCE", c.At))
	var info unix.Stat_t
	require.NoError(t, unix.Stat(device, &info))
	path := filepath.Join(w.root.Path(), "clone.dataroot")
	for _, named := range []func() error{
		func() error { return os.Symlink(device, path) },
		func() error { return unix.Mknod(path, unix.S_IFBLK|0o600, int(info.Rdev)) },
		func() error { return exec.Command("cp", "--sparse=always", device, path).Run() },
	} {
		require.NoError(t, named())
		_, err = w.root.Clone(ctx, "clone.dataroot", mountPoint(t), nil)
		assert.Error(t, err)
		assert.NotErrorIs(t, err, dataroot.ErrNoTemplate)
		require.Len(t, ownClones(t), 1)
		require.NoError(t, os.Remove(path))
	}

	// A clone at a directory in a clone goes with that.
	below := filepath.Join(c.At, "below")
	require.NoError(t, os.Mkdir(below, 0o700))
	_, err = w.root.Clone(ctx, template.Name, below, nil)
	require.NoError(t, err)
	assert.NoFileExists(t, filepath.Join(below, "file"))
	require.Len(t, ownClones(t), 2)

	// A template in a clone is one; what was cloned from it keeps that clone in use.
	run(t, "cp", "--sparse=always", filepath.Join(w.root.Path(), template.Name), c.At)
	at := mountPoint(t)
	deep, err := inside.Clone(ctx, template.Name, at, nil)
	require.NoError(t, err)
	assert.Equal(t, dataroot.Copy, deep.Way)
	assert.Equal(t, template.Record.Images, deep.Template.Record.Images)
	assert.NoFileExists(t, filepath.Join(at, "file"))
	assert.ErrorIs(t, dataroot.Discard(ctx, c.At), dataroot.ErrInUse)
	assert.FileExists(t, filepath.Join(c.At, "file"))
	require.NoError(t, dataroot.Discard(ctx, at))
	require.NoError(t, dataroot.Discard(ctx, c.At))
	requireNoClones(t)
	assert.Zero(t, loops(t, w.root.Path(), 0))
}

// Prune leaves a template of which a clone is mounted, also where tarballs go.
func TestPruneLeavesWhatIsCloned(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "xfs")
	template := w.built(t)
	c := w.clone(template.Name)
	for _, dryRun := range []bool{true, false} {
		o := &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true, DryRun: dryRun}
		r, err := w.root.Prune(ctx, o)
		require.NoError(t, err)
		assert.Empty(t, r.Removed)
		o.Others = w.root
		r, err = w.dir.Prune(ctx, o)
		require.NoError(t, err)
		assert.True(t, slices.ContainsFunc(r.Kept, func(p cache.PruneAction) bool {
			return p.Entry.Name == template.Name && p.Kept == cache.KeepInUse
		}))
		_, err = w.root.Get(template.Name)
		require.NoError(t, err)
	}
	require.NoError(t, dataroot.Discard(ctx, c.At))
	r, err := w.root.Prune(ctx, &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
	require.Len(t, r.Removed, 1)
	_, err = w.root.Get(template.Name)
	assert.ErrorIs(t, err, dataroot.ErrNoTemplate)
}

// fakeVersion is a program that only prints its version.
func fakeVersion(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\necho '"+version+"'\n"), 0o755))
	return path
}

func requireNoClones(t *testing.T) {
	t.Helper()
	require.Empty(t, ownClones(t))
}

func TestDiscard(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "xfs")
	template := w.built(t)

	// What was mounted by another program stays, also when it is mounted on a clone.
	assert.ErrorIs(t, dataroot.Discard(ctx, w.at), dataroot.ErrNotClone)
	assert.DirExists(t, w.root.Path())
	assert.ErrorIs(t, dataroot.Discard(ctx, t.TempDir()), dataroot.ErrNotClone)
	c := w.clone(template.Name)
	run(t, "mount", "-t", "tmpfs", "over", c.At)
	assert.ErrorIs(t, dataroot.Discard(ctx, c.At), dataroot.ErrNotClone)
	run(t, "umount", c.At)

	// What engines leave mounted below goes.
	below := filepath.Join(c.At, "a b")
	require.NoError(t, os.Mkdir(below, 0o700))
	run(t, "mount", "-t", "tmpfs", "below", below)
	require.NoError(t, os.Mkdir(below+"/deeper", 0o700))
	run(t, "mount", "-t", "tmpfs", "deeper", below+"/deeper")

	// A process that uses it is named.
	cmd := exec.Command("cat")
	cmd.Dir = c.At
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	err = dataroot.Discard(ctx, c.At)
	assert.ErrorIs(t, err, dataroot.ErrInUse)
	assert.ErrorContains(t, err, fmt.Sprintf("%d (cat)", cmd.Process.Pid))
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.NoError(t, dataroot.Discard(ctx, c.At))
	requireNoClones(t)
}

// Of two at once neither unmounts what is below the clone, and a part of a clone that is mounted
// once more is not one.
func TestTwoDiscards(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "xfs")
	template := w.built(t)
	at := mountPoint(t)
	run(t, "mount", "-t", "tmpfs", "below", at)
	defer run(t, "umount", at)
	for range 5 {
		_, err := w.root.Clone(ctx, template.Name, at, nil)
		require.NoError(t, err)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := dataroot.Discard(ctx, at); err != nil {
					assert.ErrorIs(t, err, dataroot.ErrNotClone)
				}
			})
		}
		both.Wait()
		requireNoClones(t)
	}
	c, err := w.root.Clone(ctx, template.Name, at, nil)
	require.NoError(t, err)
	part := mountPoint(t)
	require.NoError(t, os.Mkdir(filepath.Join(at, "part"), 0o700))
	run(t, "mount", "--bind", filepath.Join(at, "part"), part)
	assert.ErrorIs(t, dataroot.Discard(ctx, part), dataroot.ErrNotClone)
	all := ownClones(t)
	require.Len(t, all, 1)
	assert.Equal(t, c.At, all[0].At)
	run(t, "umount", part)
	require.NoError(t, dataroot.Discard(ctx, at))
}

// A container that was started meanwhile may still have a clone: then it is not gone.
func TestDiscardOfWhatAnotherNamespaceHas(t *testing.T) {
	unshare := testtool.Need(t, "unshare")
	ctx := context.Background()
	w := newWorld(t, "xfs")
	c := w.clone(w.built(t).Name)
	cmd := exec.Command(unshare, "--mount", "--propagation", "private", "sh", "-c", "echo; cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err)
	err = dataroot.Discard(ctx, c.At)
	assert.ErrorIs(t, err, dataroot.ErrInUse)
	assert.ErrorContains(t, err, "another mount namespace")
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	assert.Zero(t, loops(t, w.root.Path(), 0))
}

// A clone that is full, and a file system below that is full, cost the clone alone.
func TestCloneIsFull(t *testing.T) {
	w := newWorld(t, "xfs")
	template := w.built(t)
	path := filepath.Join(w.root.Path(), template.Name)
	before := sum(t, path)
	fill := func(at string) error {
		f, err := os.Create(filepath.Join(at, "ballast"))
		require.NoError(t, err)
		defer f.Close()
		for block := make([]byte, 1<<20); err == nil; {
			_, err = f.Write(block)
		}
		return err
	}
	small, err := dataroot.Open(w.root.Path(), &dataroot.Options{Size: 128 << 20})
	require.NoError(t, err)
	one := w.stock("one_main.tar", "registry.example/one:main", "a", "b")
	r, err := small.Build(context.Background(), "small", dataroot.Engine{Kind: dataroot.Containerd}, []*tarball.Tarball{one}, nil)
	require.NoError(t, err)
	c := w.clone(r.Template.Name)
	assert.ErrorIs(t, fill(c.At), syscall.ENOSPC)
	require.NoError(t, dataroot.Discard(context.Background(), c.At))

	c = w.clone(template.Name)
	other := filepath.Join(w.at, "other")
	f, err := os.Create(other)
	require.NoError(t, err)
	require.NoError(t, syscall.Fallocate(int(f.Fd()), 0, 0, free(t, w.at)-64<<20))
	require.NoError(t, f.Close())
	big, err := os.Create(filepath.Join(c.At, "big"))
	require.NoError(t, err)
	for block := make([]byte, 1<<20); err == nil; {
		if _, err = big.Write(block); err == nil {
			err = big.Sync()
		}
	}
	assert.True(t, errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS), "%v", err)
	_ = big.Close()
	assert.Equal(t, before, sum(t, path))
	require.NoError(t, dataroot.Discard(context.Background(), c.At))
	require.NoError(t, os.Remove(other))
	require.NoError(t, w.root.Verify(context.Background(), template.Name, dataroot.Engine{Kind: dataroot.Containerd}))
}

// Eight jobs at once: each has an engine of its own on a clone, and runs a container.
func TestJobs(t *testing.T) {
	for _, program := range []string{"dockerd", "docker", "runc"} {
		testtool.Need(t, program)
	}
	ctx := context.Background()
	w := newWorld(t, "xfs")
	require.NoError(t, w.stockWriter())
	tb, err := w.dir.Get(ctx, "writer_main.tar")
	require.NoError(t, err)
	defer tb.Close()
	r, err := w.root.Build(ctx, "writer_main", dataroot.Engine{Kind: dataroot.Docker}, []*tarball.Tarball{tb}, nil)
	require.NoError(t, err)
	path := filepath.Join(w.root.Path(), r.Template.Name)
	before := sum(t, path)
	var jobs sync.WaitGroup
	for range 8 {
		c := w.clone(r.Template.Name)
		jobs.Go(func() {
			assert.NoError(t, job(c.At, tb.Image.Reference()))
		})
	}
	jobs.Wait()
	all := ownClones(t)
	require.Len(t, all, 8)
	for _, c := range all {
		require.NoError(t, dataroot.Discard(ctx, c.At))
	}
	assert.Equal(t, before, sum(t, path))
}

// stockWriter stocks an image with a program that writes 10 MB.
func (w *world) stockWriter() error {
	program := filepath.Join(w.t.TempDir(), "writer")
	build := exec.Command("go", "build", "-o", program, "./testdata/writer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var raw, packed bytes.Buffer
	tw := tar.NewWriter(&raw)
	if err := tw.WriteHeader(&tar.Header{Name: "writer", Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := tw.Write(content); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	zw := gzip.NewWriter(&packed)
	if _, err := zw.Write(raw.Bytes()); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	layer, err := imagetest.Blob(packed.Bytes(), v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(raw.Bytes()))}, types.DockerLayer)
	if err != nil {
		return err
	}
	image, source, err := tarballtest.Image("registry.example/writer:main", layer)
	if err != nil {
		return err
	}
	_, err = w.dir.Put(context.Background(), "writer_main.tar", image, source, &cache.PutOptions{})
	return err
}

// job starts an engine on a data root, runs a container, and stops the engine.
func job(root, reference string) error {
	private, err := os.MkdirTemp("", "job")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	config := filepath.Join(private, "config")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		return err
	}
	socket := "unix://" + filepath.Join(private, "s")
	log, err := os.Create(filepath.Join(private, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	daemon := exec.Command("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "-H", socket, "--data-root", root,
		"--exec-root", filepath.Join(private, "exec"), "--pidfile", filepath.Join(private, "pid"), "--config-file", config)
	out, err := daemon.StderrPipe()
	if err != nil {
		return err
	}
	if err := daemon.Start(); err != nil {
		return err
	}
	ready, ended := make(chan bool, 1), make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Fprintln(log, lines.Text()); err == nil && strings.Contains(lines.Text(), "API listen on") {
				ready <- true
			}
		}
		ended <- daemon.Wait()
	}()
	select {
	case <-ready:
	case err := <-ended:
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("dockerd: %w: %s", err, text)
	}
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		<-ended
	}()
	printed, err := exec.Command("docker", "-H", socket, "run", "--rm", "--network", "none", "--entrypoint", "/writer", reference).CombinedOutput()
	if err != nil || !strings.Contains(string(printed), "written") {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("run: %w: %s\n%s", err, printed, text)
	}
	return nil
}
