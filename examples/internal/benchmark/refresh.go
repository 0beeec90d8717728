//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	var wrote bool
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

// measureSystems measures a refresh with a new last layer on each file system that
// can be mounted.
func (b *bench) measureSystems(ctx context.Context, total int64) {
	t := &table{title: fmt.Sprintf("(d) Refresh: five layers, %.4g MiB, the last of them, 5 %%, is new", mib(total)), text: 1,
		head: []string{"file system", "runs", "all of it, (b), s", "refresh, (b), s", "", "sent by the registry, MiB", "newly allocated, MiB"}}
	b.tables = append(b.tables, t)
	for _, name := range []string{"xfs", "btrfs", "ext4"} {
		mkfs := "mkfs." + name
		if _, err := exec.LookPath(mkfs); err != nil || os.Geteuid() != 0 {
			fmt.Fprintf(os.Stderr, "%s is left out: it needs %s, and root to mount it\n", name, mkfs)
			continue
		}
		var full, wall []float64  // seconds
		var sent, allocated int64 // the most of all times
		for range b.repeat {
			first, second, more := b.refreshOn(ctx, mkfs, total)
			full, wall = append(full, first.wall.Seconds()), append(wall, second.wall.Seconds())
			sent, allocated = max(sent, second.Written), max(allocated, more)
			fmt.Fprintf(os.Stderr, "refresh, %s: %.2f s, all of it %.2f s\n", name, second.wall.Seconds(), first.wall.Seconds())
		}
		t.add(name, fmt.Sprint(b.repeat), spread(full), spread(wall), fmt.Sprintf("**%.1f×** faster", median(full)/median(wall)),
			fmt.Sprintf("%.1f", mib(sent)), fmt.Sprintf("%.1f", mib(allocated)))
	}
}

// refreshOn stocks an image on a new file system, and then its next version. It
// also returns how many bytes are newly allocated for that one.
func (b *bench) refreshOn(ctx context.Context, mkfs string, total int64) (first, second stocked, allocated int64) {
	// Two tarballs, in the file that is mounted and in what the kernel keeps of them.
	warm(4 * total)
	image, at := filepath.Join(b.scratch, "image"), filepath.Join(b.scratch, "mounted")
	check(os.WriteFile(image, nil, 0o600))
	defer os.Remove(image)
	check(os.Truncate(image, 3*total+(1<<30)))
	check(os.Mkdir(at, 0o700))
	defer os.Remove(at)
	output(ctx, nil, mkfs, "-q", image)
	output(ctx, nil, "mount", "-o", "loop", image, at)
	defer func() { check(unix.Unmount(at, 0)) }()
	first = b.stock(ctx, at, "main", limited, "refresh-1")
	before := usedOf(at)
	// As another branch, so that the old version does not give its space back.
	second = b.stock(ctx, at, "release", limited, "refresh-2")
	return first, second, usedOf(at) - before
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
