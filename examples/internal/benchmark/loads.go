//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
)

// loads is what it costs to bring an image from its tarball into an engine: five
// layers of as many bytes as the giant one, the last of them 5 %.
type loads struct {
	engine string
	total  int64 // bytes of the tarball
	rows   []*loadRow
}

// A loadRow is what one program needed for one work, run by run.
type loadRow struct {
	work, tool string
	usages     []*usage
}

// The works of a load.
const (
	coldWork    = "nothing is there"
	deltaWork   = "the last layer is missing"
	presentWork = "it is there already"
)

const (
	dockerLoad = "docker load"
	ourLoad    = "load-image"
	ourArchive = "load-image -no-pull"
)

// loadTag is the tag of the images that are loaded: the one that is there, and
// its next version.
const loadTag = "load"

// measureLoads loads with both programs in turns, into an engine of its own: an
// engine's images are on a disk, as the tarballs are.
func (b *bench) measureLoads(ctx context.Context) (err error) {
	if !b.options.loads || !slices.ContainsFunc(b.tools, func(t tool) bool { return t.name() == "docker" }) {
		return nil
	}
	dir, err := os.MkdirTemp(b.options.loadDir, "dcb") // short: docker's socket is in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	engine, err := startDocker(ctx, dir, b.tools[0].(*commandTool).env, b.options.loadDockerd)
	if err != nil {
		return err
	}
	defer engine.stop()
	l := &loads{engine: engine.says}
	tarballs, err := b.makeLoadTarballs(ctx, dir)
	if err != nil {
		return err
	}
	program := filepath.Join(b.scratch, ourLoad)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/dockercache/dockercache/examples/load-image").CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", ourLoad, err, out)
	}
	l.total = tarballs[0].Layout.Size()
	our := func(more ...string) func(t *tarball.Tarball) []string {
		return func(t *tarball.Tarball) []string {
			branch := strings.TrimSuffix(t.Name()[strings.LastIndex(t.Name(), "_")+1:], ".tar")
			return append(append([]string{program}, more...), "-quiet", "-host", engine.socket, "-lock-dir", filepath.Join(b.scratch, "locks"), "-dir", filepath.Dir(t.Name()), "-branch", branch, t.Image.Reference())
		}
	}
	type client struct {
		name string
		args func(t *tarball.Tarball) []string
	}
	clients := []client{
		{ourLoad, our()},
		{dockerLoad, func(t *tarball.Tarball) []string { return engine.arguments("load", "-q", "-i", t.Name()) }},
	}
	if b.options.loadDockerd != dockerd { // it pulls
		clients = append(clients, client{ourArchive, our("-no-pull")})
	}
	for _, work := range []string{coldWork, deltaWork, presentWork} {
		for _, c := range clients {
			l.rows = append(l.rows, &loadRow{work: work, tool: c.name})
		}
	}
	for round := range b.options.repeat {
		for i := range clients {
			c := clients[(round+i)%len(clients)] // neither is always the first
			if err := warm(warmTimes * l.total); err != nil {
				return err
			}
			for _, step := range []struct {
				work    string
				tarball *tarball.Tarball
			}{{coldWork, tarballs[0]}, {presentWork, tarballs[0]}, {deltaWork, tarballs[1]}} {
				u, err := engine.load(ctx, c.args(step.tarball), step.tarball)
				if err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "load, %s, %s: %.2f s\n", step.work, c.name, u.Wall.Seconds())
				row := l.find(step.work, c.name)
				row.usages = append(row.usages, u)
			}
			if err := engine.forget(ctx); err != nil {
				return err
			}
		}
	}
	b.loads = l
	return nil
}

func (l *loads) find(work, tool string) *loadRow {
	return l.rows[slices.IndexFunc(l.rows, func(r *loadRow) bool { return r.work == work && r.tool == tool })]
}

// makeLoadTarballs stocks two versions of an image under one name, as the tarballs
// of two branches.
func (b *bench) makeLoadTarballs(ctx context.Context, scratch string) ([]*tarball.Tarball, error) {
	size := int64(float64(int64(1)<<30) * b.options.scale)
	var layers []madeLayer
	for i := range 6 {
		part := size * 95 / 400
		if i > 3 {
			part = size * 5 / 100
		}
		// Random bytes spare the engine much of the work that it has with any client.
		makeOne := func(dir, name string, size int64) (*v1.Descriptor, v1.Hash, error) {
			return makeLayer(dir, name, size, 1)
		}
		if b.options.ratio > 1 {
			makeOne = makeFilesLayer
		}
		l, diffID, err := makeOne(b.scratch, fmt.Sprint(loadTag, i), part)
		if err != nil {
			return nil, err
		}
		layers = append(layers, madeLayer{*l, diffID})
	}
	dir := filepath.Join(scratch, "loads")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var tarballs []*tarball.Tarball
	for version, branch := range []string{"main", "release"} {
		if err := makeTag(b.scratch, loadTag+"-1", append(slices.Clone(layers[:4]), layers[4+version])); err != nil {
			return nil, err
		}
		if _, _, err := b.stock(ctx, dir, branch, straight, loadTag+"-1"); err != nil {
			return nil, err
		}
		if err := os.Remove(filepath.Join(b.scratch, "tag-"+loadTag+"-1")); err != nil {
			return nil, err
		}
		t, err := tarball.Open(filepath.Join(dir, loadTag+"_"+branch+".tar"))
		if err != nil {
			return nil, err
		}
		tarballs = append(tarballs, t)
	}
	return tarballs, nil
}

// load measures a client with the engine's work, and looks whether it did it.
func (d *dockerTool) load(ctx context.Context, args []string, t *tarball.Tarball) (*usage, error) {
	daemons := append(childrenOf(d.cmd.Process.Pid), d.cmd.Process.Pid)
	before, err := d.daemons(daemons)
	if err != nil {
		return nil, err
	}
	u, err := measured(ctx, d.env, args...)
	if err != nil {
		return nil, err
	}
	after, err := d.daemons(daemons)
	if err != nil {
		return nil, err
	}
	u.CPU += after.CPU - before.CPU
	u.Daemon = after.Written - before.Written
	out, err := d.client(ctx, "image", "inspect", t.Image.Reference()).Output()
	var found []struct {
		ID string `json:"Id"`
	}
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err == nil && (len(found) != 1 || found[0].ID != t.Image.ConfigDigest().String() && found[0].ID != t.Image.Digest().String()) {
		err = fmt.Errorf("it has %v, not %s", found, t.Image.ConfigDigest())
	}
	if err != nil {
		return nil, fmt.Errorf("%s has not loaded %s: %w", args[0], t.Name(), err)
	}
	return u, nil
}

// forget removes all images of the engine.
func (d *dockerTool) forget(ctx context.Context) error {
	out, err := d.client(ctx, "image", "ls", "-q", "-a").Output()
	if err != nil {
		return err
	}
	ids := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out)))))
	if len(ids) == 0 {
		return nil
	}
	out, err = d.client(ctx, append([]string{"image", "rm", "-f"}, ids...)...).CombinedOutput()
	if err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}
