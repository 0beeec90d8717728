//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// measureRefresh measures what it costs to stock an image of which most is there:
// five layers of as many bytes as the giant one, the last of them 5 %.
func (b *bench) measureRefresh(ctx context.Context) {
	if !b.refresh {
		return
	}
	tags := []string{"refresh-1", "refresh-2", "sibling-1"}
	base, last := b.makeVersions("refresh", b.makeLayer, tags...)
	for i, tag := range tags {
		b.makeTag(tag, append(slices.Clone(base), last[i])...)
	}
	var shared int64
	for _, l := range base {
		shared += l.Size
	}
	b.measureUnchanged(ctx)
	b.measureSiblings(ctx, shared+last[0].Size+last[2].Size)
	b.measureSent(ctx, shared+last[1].Size)
	b.measureSystems(ctx, shared+last[1].Size)
}

// measureUnchanged stocks an image that is there.
func (b *bench) measureUnchanged(ctx context.Context) {
	dir, remove := b.directory()
	defer remove()
	// Twice: the second one writes when it was last used.
	for range 2 {
		b.stock(ctx, dir, "main", straight, "refresh-1")
	}
	var most stats
	var wrote bool     // anything but the log of what was done
	var more []float64 // milliseconds, than the request for the manifest takes
	for range max(b.repeat, 5) {
		was := listing(dir)
		s := b.stock(ctx, dir, "main", straight, "refresh-1")
		if s.outcome != "unchanged" {
			check(fmt.Errorf("want unchanged, it is %s", s.outcome))
		}
		wrote = wrote || listing(dir) != was
		most.Manifests, most.Blobs, most.Other = max(most.Manifests, s.Manifests), max(most.Blobs, s.Blobs), max(most.Other, s.Other)
		start := time.Now()
		get(ctx, "http://"+b.server.hosts[straight]+"/v2/bench/image/manifests/refresh-1")
		more = append(more, float64((s.wall-time.Since(start)).Microseconds())/1000)
	}
	b.count("(d) nothing changed: requests", "%d for manifests, %d for blobs, %d to log in; written: %v", most.Manifests, most.Blobs, most.Other, wrote)
	b.count("(d) nothing changed: more than the request itself", "%s ms", spread(more))
}

// listing is what is in a directory, with sizes, times and inodes.
func listing(dir string) (text string) {
	for _, e := range must(os.ReadDir(dir)) {
		if strings.HasPrefix(e.Name(), ".history.") { // gets a line in each run
			continue
		}
		var s unix.Stat_t
		check(unix.Stat(filepath.Join(dir, e.Name()), &s))
		text += fmt.Sprintln(e.Name(), s.Size, s.Mtim, s.Ctim, s.Ino)
	}
	return text
}

// measureSiblings stocks two images at once that are 95 % the same. What the
// registry sends is more than what is downloaded: what HTTP adds, and what is on
// its way when a range is cut short.
func (b *bench) measureSiblings(ctx context.Context, distinct int64) {
	dir, remove := b.directory()
	defer remove()
	s := b.stock(ctx, dir, "main", limited, "refresh-1", "sibling-1")
	b.count("(d) two siblings at once, 95 % shared", "%.1f MiB of layers, %.1f MiB are distinct; %.1f MiB sent", mib(s.downloaded), mib(distinct), mib(s.Written))
}

// sentRuns is how often what the registry sends for a refresh is measured, and
// busyRuns how many of them are while all CPUs have other work.
const sentRuns, busyRuns = 10, 2

// measureSent stocks the next version of an image of which 5 % are new again and
// again, and measures what the registry sends: layers and whatever is on its way when a
// range is cut short.
func (b *bench) measureSent(ctx context.Context, total int64) {
	dir, remove := b.directory()
	defer remove()
	b.stock(ctx, dir, "main", straight, "refresh-1")
	var idle, busy []float64
	for i := range sentRuns {
		sent, isBusy := &idle, i >= sentRuns-busyRuns
		if isBusy {
			sent = &busy
		}
		*sent = append(*sent, 100*float64(b.refreshIn(ctx, dir, isBusy))/float64(total))
	}
	b.count(fmt.Sprintf("(d) 5 %% new: sent by the registry, of all, %d runs", sentRuns), "%.2f to %.2f %%; in %d of them beside a busy machine %.2f to %.2f %%",
		slices.Min(idle), slices.Max(idle), busyRuns, slices.Min(busy), slices.Max(busy))
}

// refreshIn stocks the next version in a directory, removes it again, and returns how
// many bytes the registry sent.
func (b *bench) refreshIn(ctx context.Context, dir string, busy bool) int64 {
	if busy {
		defer occupy()()
	}
	s := b.stockWith(ctx, fixed(sixteen), dir, "release", limited, "refresh-2")
	check(os.Remove(filepath.Join(dir, "refresh_release.tar")))
	return s.Written
}

// occupy gives each CPU work until stop is called.
func occupy() (stop func()) {
	var stopped atomic.Bool
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(func() {
			for !stopped.Load() {
			}
		})
	}
	return func() { stopped.Store(true); all.Wait() }
}

// measureSystems measures a refresh with a new last layer on each file system that
// can be mounted.
func (b *bench) measureSystems(ctx context.Context, total int64) {
	t := &table{title: fmt.Sprintf("(d) Refresh: five layers, %.4g MiB, the last of them, 5 %%, is new", mib(total)), text: 1,
		head: []string{"file system", "runs", "all of it, (b), s", "refresh, (b), s", "", "sent by the registry, MiB", "newly allocated, MiB",
			"nothing in memory, s", "read by the process, MiB", "from the disk for it, MiB", "by the device, MiB"}}
	b.tables = append(b.tables, t)
	for _, name := range []string{"xfs", "btrfs", "ext4"} {
		mkfs := "mkfs." + name
		if _, err := exec.LookPath(mkfs); err != nil || os.Geteuid() != 0 {
			fmt.Fprintf(os.Stderr, "%s is left out: it needs %s, and root to mount it\n", name, mkfs)
			continue
		}
		// Seconds, and MiB.
		var full, wall, sent, allocated, cold, read, fromDisk, device []float64
		for range b.repeat {
			r := b.refreshOn(ctx, mkfs, total)
			full, wall = append(full, r.first.wall.Seconds()), append(wall, r.second.wall.Seconds())
			sent, allocated = append(sent, mib(r.second.Written)), append(allocated, mib(r.allocated))
			cold, read = append(cold, r.cold.wall.Seconds()), append(read, mib(r.cold.readBesides()))
			fromDisk, device = append(fromDisk, mib(r.cold.fromDisk)), append(device, mib(r.device))
			fmt.Fprintf(os.Stderr, "refresh, %s: %.2f s, all of it %.2f s\n", name, r.second.wall.Seconds(), r.first.wall.Seconds())
		}
		t.add(name, fmt.Sprint(b.repeat), spread(full), spread(wall), fmt.Sprintf("**%.1f×** faster", median(full)/median(wall)),
			spread(sent), spread(allocated), spread(cold), spread(read), spread(fromDisk), spread(device))
	}
}

// refreshed is what the first version of an image and the next one cost, and that one
// with nothing in memory.
type refreshed struct {
	first, second, cold stocked
	allocated           int64 // bytes newly in use for the second
	device              int64 // bytes read from the disk for the cold one, by whatever
}

// readBesides is how many bytes the process read of files: layers that came from the
// registry, and what the kernel copied for it, count as read too. What is cloned does not.
func (s *stocked) readBesides() int64 { return max(s.read-s.downloaded-s.copied, 0) }

// refreshOn stocks an image on a new file system, and then its next version: once as
// it is, and once after the file system was mounted again, so that nothing of it is in
// memory.
func (b *bench) refreshOn(ctx context.Context, mkfs string, total int64) (r refreshed) {
	// Two tarballs, in the file that is mounted and in what the kernel keeps of them.
	warm(4 * total)
	image, at := filepath.Join(b.scratch, "image"), filepath.Join(b.scratch, "mounted")
	check(os.WriteFile(image, nil, 0o600))
	defer os.Remove(image)
	check(os.Truncate(image, (3*total+(1<<30))&^4095)) // whole blocks
	check(os.Mkdir(at, 0o700))
	defer os.Remove(at)
	output(ctx, nil, mkfs, "-q", image)
	device := output(ctx, nil, "losetup", "--find", "--show", image)
	defer func() { output(context.WithoutCancel(ctx), nil, "losetup", "--detach", device) }()
	output(ctx, nil, "mount", device, at)
	defer func() { check(unix.Unmount(at, 0)) }()
	r.first = b.stockWith(ctx, fixed(sixteen), at, "main", limited, "refresh-1")
	used := usedOf(at)
	// As another branch, so that the old version does not give its space back.
	r.second = b.stockWith(ctx, fixed(sixteen), at, "release", limited, "refresh-2")
	r.allocated = usedOf(at) - used
	check(os.Remove(filepath.Join(at, "refresh_release.tar")))
	check(unix.Unmount(at, 0))
	output(ctx, nil, "mount", device, at)
	read := readFrom(device)
	r.cold = b.stockWith(ctx, fixed(sixteen), at, "release", limited, "refresh-2")
	r.device = readFrom(device) - read
	return r
}

// readFrom returns how many bytes were read from a disk so far, by the third field
// of its stat in /sys.
func readFrom(device string) int64 {
	content := must(os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "stat")))
	return 512 * must(strconv.ParseInt(strings.Fields(string(content))[2], 10, 64)) // a sector, always
}

// usedOf returns how many bytes of a file system are in use, once all is written.
func usedOf(dir string) int64 {
	f := must(os.Open(dir))
	defer f.Close()
	check(unix.Syncfs(int(f.Fd())))
	var s unix.Statfs_t
	check(unix.Fstatfs(int(f.Fd()), &s))
	return int64(s.Blocks-s.Bfree) * int64(s.Bsize)
}
