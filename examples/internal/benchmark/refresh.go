//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A refresh is what it costs to stock an image of which most is there: five layers
// of as many bytes as the giant one, the last of them 5 %.
type refresh struct {
	total     int64 // bytes of the image's layers
	unchanged unchanged
	systems   []*refreshed
	siblings  siblings
}

// unchanged is a refresh of an image that is there.
type unchanged struct {
	manifests, blobs, all int64           // requests, the most of all times
	wrote                 bool            // something in the directory is another than before
	more                  []time.Duration // than the request for the manifest takes
}

// refreshed is a refresh with a new last layer, on one file system.
type refreshed struct {
	name       string
	clones     bool
	sent       int64 // by the registry for it, with all that HTTP adds; the most of all times
	allocated  int64 // on the disk, for the new version; the most of all times
	full, wall []time.Duration
}

// siblings are two images that are stocked at once, 95 % the same: how many bytes
// of layers the program says that it downloaded, how many bytes the registry sent,
// with all that HTTP adds and what was on its way when a range was cut short, how
// many bytes of distinct layers there are, and in the smallest that both have.
type siblings struct{ downloaded, sent, distinct, shared int64 }

const refreshTag = "refresh" // refresh-1, refresh-2, sibling-1

func (b *bench) makeRefreshImages() (*refresh, error) {
	size := int64(float64(int64(1)<<30) * b.options.scale)
	layer := func(name string, size int64) (madeLayer, error) {
		l, diffID, err := makeLayer(b.scratch, name, max(size, 1), b.options.ratio)
		if err != nil {
			return madeLayer{}, err
		}
		return madeLayer{*l, diffID}, nil
	}
	var base []madeLayer
	for i := range 4 {
		l, err := layer(fmt.Sprint("refresh-base-", i), size*95/400)
		if err != nil {
			return nil, err
		}
		base = append(base, l)
	}
	r := &refresh{}
	for _, tag := range []string{refreshTag + "-1", refreshTag + "-2", "sibling-1"} {
		top, err := layer(tag, size*5/100)
		if err != nil {
			return nil, err
		}
		if err := makeTag(b.scratch, tag, append(slices.Clone(base), top)); err != nil {
			return nil, err
		}
		r.siblings.distinct += top.layer.Size
		r.total = top.layer.Size
	}
	r.siblings.distinct -= r.total // of refresh-2, which is not one of the two and as large
	for _, l := range base {
		r.total += l.layer.Size
		r.siblings.distinct += l.layer.Size
		r.siblings.shared = l.layer.Size // they are as large
	}
	return r, nil
}

// measureRefresh measures all of it.
func (b *bench) measureRefresh(ctx context.Context) (err error) {
	if !b.options.refresh {
		return nil
	}
	r, err := b.makeRefreshImages()
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, *refresh) error{b.measureUnchanged, b.measureSiblings, b.measureSystems} {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	b.refresh = r
	return nil
}

// stocked is what docker-cache says of an image.
type stocked struct {
	Outcome    string
	Downloaded int64 `json:"bytes_downloaded"`
}

// stock runs docker-cache and returns what it says, and how long it took.
func (b *bench) stock(ctx context.Context, dir, branch, link string, tags ...string) (results []stocked, wall time.Duration, err error) {
	tool := b.tools[0].(*commandTool)
	args := tool.args("", "", dir)
	args = args[:len(args)-1] // the reference
	args[slices.Index(args, "-branch")+1] = branch
	for _, tag := range tags {
		args = append(args, work{name: tag}.reference(b.server.hosts[link]))
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), tool.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	wall = time.Since(start)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w\n%s", ours, err, stderr.String())
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var s stocked
		if err := d.Decode(&s); err != nil {
			return nil, 0, err
		}
		results = append(results, s)
	}
	return results, wall, nil
}

func (b *bench) measureUnchanged(ctx context.Context, r *refresh) error {
	dir, remove, err := b.directory()
	if err != nil {
		return err
	}
	defer remove()
	// Twice: the second one leaves the mark of when it was used.
	for range 2 {
		if _, _, err := b.stock(ctx, dir, "main", straight, refreshTag+"-1"); err != nil {
			return err
		}
	}
	for range max(b.options.repeat, 5) {
		before, err := b.server.counts(ctx)
		if err != nil {
			return err
		}
		was := listing(dir)
		results, wall, err := b.stock(ctx, dir, "main", straight, refreshTag+"-1")
		if err != nil {
			return err
		}
		if results[0].Outcome != "unchanged" {
			return fmt.Errorf("want unchanged, it is %s", results[0].Outcome)
		}
		r.unchanged.wrote = r.unchanged.wrote || listing(dir) != was
		after, err := b.server.counts(ctx)
		if err != nil {
			return err
		}
		r.unchanged.manifests = max(r.unchanged.manifests, after["/manifests/"]-before["/manifests/"])
		r.unchanged.blobs = max(r.unchanged.blobs, after["/blobs/"]-before["/blobs/"])
		r.unchanged.all = max(r.unchanged.all, after["/v2/"]-before["/v2/"])
		request, err := b.timeManifest(ctx)
		if err != nil {
			return err
		}
		r.unchanged.more = append(r.unchanged.more, wall-request)
	}
	return nil
}

// listing is what is in a directory, with sizes, times and inodes.
func listing(dir string) string {
	var text string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	for _, e := range entries {
		var s unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, e.Name()), &s); err != nil {
			return err.Error()
		}
		text += fmt.Sprintln(e.Name(), s.Size, s.Mtim, s.Ctim, s.Ino)
	}
	return text
}

// timeManifest is how long the request itself takes, on a new connection.
func (b *bench) timeManifest(ctx context.Context) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.server.hosts[straight]+"/v2/bench/image/manifests/"+refreshTag+"-1", nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return time.Since(start), err
}

func (b *bench) measureSiblings(ctx context.Context, r *refresh) error {
	dir, remove, err := b.directory()
	if err != nil {
		return err
	}
	defer remove()
	before, err := b.server.written(ctx, -1)
	if err != nil {
		return err
	}
	results, _, err := b.stock(ctx, dir, "main", limited, refreshTag+"-1", "sibling-1")
	if err != nil {
		return err
	}
	for _, s := range results {
		r.siblings.downloaded += s.Downloaded
	}
	after, err := b.server.written(ctx, -1)
	r.siblings.sent = after - before
	return err
}

// directory returns a new directory in memory.
func (b *bench) directory() (dir string, remove func(), err error) {
	dir = filepath.Join(b.scratch, "out")
	err = os.Mkdir(dir, 0o700)
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// measureSystems measures a refresh on each file system that can be mounted.
func (b *bench) measureSystems(ctx context.Context, r *refresh) error {
	for _, system := range []*refreshed{{name: "xfs", clones: true}, {name: "btrfs", clones: true}, {name: "ext4"}} {
		mkfs := "mkfs." + system.name
		if _, err := exec.LookPath(mkfs); err != nil || os.Geteuid() != 0 {
			fmt.Fprintf(os.Stderr, "%s is left out: it needs %s, and root to mount it\n", system.name, mkfs)
			continue
		}
		for range b.options.repeat {
			if err := b.measureSystem(ctx, system, mkfs, r.total); err != nil {
				return err
			}
		}
		r.systems = append(r.systems, system)
	}
	return nil
}

func (b *bench) measureSystem(ctx context.Context, system *refreshed, mkfs string, total int64) (err error) {
	// Two tarballs, in the file that is mounted and in what the kernel keeps of them.
	if err := warm(4 * total); err != nil {
		return err
	}
	image, at := filepath.Join(b.scratch, "image"), filepath.Join(b.scratch, "mounted")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(image)) }()
	if err := errors.Join(f.Truncate(3*total+(1<<30)), f.Close(), os.Mkdir(at, 0o700)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(at)) }()
	for _, command := range [][]string{{mkfs, "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, out)
		}
	}
	defer func() { err = errors.Join(err, unix.Unmount(at, 0)) }()
	_, full, err := b.stock(ctx, at, "main", limited, refreshTag+"-1")
	if err != nil {
		return err
	}
	before, err := usedOf(at)
	if err != nil {
		return err
	}
	sent, err := b.server.written(ctx, -1)
	if err != nil {
		return err
	}
	// As another branch, so that the old version does not give its space back.
	_, wall, err := b.stock(ctx, at, "release", limited, refreshTag+"-2")
	if err != nil {
		return err
	}
	nowSent, err := b.server.written(ctx, -1)
	if err != nil {
		return err
	}
	after, err := usedOf(at)
	if err != nil {
		return err
	}
	system.full, system.wall = append(system.full, full), append(system.wall, wall)
	system.sent, system.allocated = max(system.sent, nowSent-sent), max(system.allocated, after-before)
	fmt.Fprintf(os.Stderr, "refresh on %s: %.2f s, all of it %.2f s\n", system.name, wall.Seconds(), full.Seconds())
	return nil
}

// usedOf returns how many bytes of a file system are in use, once all is written.
func usedOf(dir string) (int64, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return 0, err
	}
	var s unix.Statfs_t
	err = unix.Fstatfs(int(f.Fd()), &s)
	return int64(s.Blocks-s.Bfree) * s.Bsize, err
}

func medianOf(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (r *refresh) bars() []bar {
	u, s := r.unchanged, r.siblings
	more := medianOf(u.more)
	bars := []bar{
		{"refresh, nothing changed: one request, nothing written", fmt.Sprintf("%d for manifests, %d for blobs, %d to log in; written: %v", u.manifests, u.blobs, u.all-u.manifests-u.blobs, u.wrote), u.manifests == 1 && u.all <= 2 && !u.wrote},
		{"refresh, nothing changed: at most 50 ms more than the request itself", fmt.Sprintf("%.0f ms", float64(more.Microseconds())/1000), more <= 50*time.Millisecond},
		{"two siblings at once, 95 % shared: each shared layer crosses the network once", fmt.Sprintf("%.1f MiB of layers, %.1f MiB are distinct; %.1f MiB sent", mib(s.downloaded), mib(s.distinct), mib(s.sent)), s.downloaded == s.distinct && s.sent < s.distinct+s.shared},
	}
	for _, s := range r.systems {
		part := 100 * float64(s.sent) / float64(r.total)
		bars = append(bars, bar{"refresh of 5 %, " + s.name + ": at most 6 % from the registry", fmt.Sprintf("%.1f %%", part), part <= 6})
		if s.clones {
			part := 100 * float64(s.allocated) / float64(r.total)
			bars = append(bars, bar{"refresh of 5 %, " + s.name + ": at most 7 % newly allocated", fmt.Sprintf("%.1f %%", part), part <= 7})
		} else {
			times := float64(medianOf(s.full)) / float64(medianOf(s.wall))
			bars = append(bars, bar{"refresh of 5 %, " + s.name + ": at least 5× faster than all of it, (b)", fmt.Sprintf("%.1f×", times), times >= 5})
		}
	}
	return bars
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// printRefresh writes the table of the file systems.
func (b *bench) printRefresh(w io.Writer) {
	if b.refresh == nil || len(b.refresh.systems) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### (d) Refresh: five layers, %.4g MiB, the last of them, 5 %%, is new\n\n", mib(b.refresh.total))
	fmt.Fprint(w, "| file system | runs | all of it, (b), s | refresh, (b), s | | sent by the registry, MiB | newly allocated, MiB |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range b.refresh.systems {
		full, wall := medianOf(s.full), medianOf(s.wall)
		fmt.Fprintf(w, "| %s | %d | %s (%s–%s) | %s (%s–%s) | **%.1f×** faster | %.1f | %.1f |\n", s.name, len(s.wall),
			short(full.Seconds()), short(slices.Min(s.full).Seconds()), short(slices.Max(s.full).Seconds()),
			short(wall.Seconds()), short(slices.Min(s.wall).Seconds()), short(slices.Max(s.wall).Seconds()),
			float64(full)/float64(wall), mib(s.sent), mib(s.allocated))
	}
}
