//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ours is this project's program, with which the others are compared.
const ours = "docker-cache"

// A puller writes the tarball of an image into dir and returns what it cost.
type puller func(ctx context.Context, reference, dir string) *usage

type tool struct {
	name, version string
	pull          puller
}

// peers are the programs that are one command: how to ask for the version, and
// how to pull REF into OUT. What oras writes is
// an OCI layout alone, which not every docker load accepts: it takes part where
// refusals are measured.
var peers = []struct {
	version, pull string
	refusals      bool
}{
	{"crane version", "crane pull --platform linux/amd64 REF OUT", false},
	{"regctl version --format {{.VCSTag}}", "regctl image export --platform linux/amd64 REF OUT", false},
	{"skopeo --version", "skopeo --insecure-policy copy --src-tls-verify=false docker://REF docker-archive:OUT:REF", false},
	{"oras version", "oras backup --no-tty --plain-http --output OUT REF", true},
}

// findTools builds ours and looks for the others.
func (b *bench) findTools(ctx context.Context) {
	b.cache = b.build(ctx, ours)
	b.tools = []tool{{ours, "this project", b.pullOurs()}}
	for _, p := range peers {
		ask, command := strings.Fields(p.version), strings.Fields(p.pull)
		if !b.wants(ask[0]) {
			continue
		}
		version, _, _ := strings.Cut(output(ctx, b.env, ask...), "\n")
		version = strings.TrimSpace(strings.NewReplacer("skopeo version ", "", "Version:", "").Replace(version))
		found := tool{ask[0], version, func(ctx context.Context, reference, dir string) *usage {
			args := slices.Clone(command)
			for i, arg := range args {
				args[i] = strings.NewReplacer("REF", reference, "OUT", dir+"/out.tar").Replace(arg)
			}
			return measured(ctx, b.env, args...)
		}}
		if p.refusals {
			b.more = append(b.more, found)
		} else {
			b.tools = append(b.tools, found)
		}
		if ask[0] == "regctl" {
			for link := range b.server.hosts {
				b.plainHTTP(ctx, link)
			}
		}
	}
	switch {
	case !b.wants("docker") || !b.wants(dockerd):
	case os.Geteuid() != 0:
		fmt.Fprintln(os.Stderr, "docker is left out: starting a daemon needs root")
	default:
		b.engine = startDocker(b.scratch, b.env, dockerd)
		b.tools = append(b.tools, tool{"docker", b.engine.version(ctx), b.engine.pull})
	}
}

// everyTool returns those of all measurements.
func (b *bench) everyTool() []tool { return slices.Concat(b.tools, b.more) }

// plainHTTP lets regctl, which has no flag for it, use a link without TLS.
func (b *bench) plainHTTP(ctx context.Context, link string) {
	output(ctx, b.env, "regctl", "registry", "set", "--tls", "disabled", b.server.hosts[link])
}

// wants reports whether a program takes part: it was asked for, and is there.
func (b *bench) wants(name string) bool {
	if !slices.Contains(b.options.tools, strings.TrimSuffix(name, "d")) {
		return false
	}
	if _, err := exec.LookPath(name); err != nil {
		fmt.Fprintf(os.Stderr, "%s is left out: it is not installed\n", name)
		return false
	}
	return true
}

// build returns the path of one of this project's programs.
func (b *bench) build(ctx context.Context, name string) string {
	program := filepath.Join(b.scratch, name)
	output(ctx, nil, "go", "build", "-o", program, "github.com/dockercache/dockercache/examples/"+name)
	return program
}

// pullOurs is docker-cache with more flags.
func (b *bench) pullOurs(flags ...string) puller {
	return func(ctx context.Context, reference, dir string) *usage {
		args := b.cacheCommand(ctx, dir, "main", reference).Args
		return measured(ctx, b.env, slices.Insert(args, 1, flags...)...)
	}
}

// fixed is docker-cache's flag for a number of connections that does not find itself.
func fixed(connections int) []string { return []string{"-connections", fmt.Sprint(connections)} }

// sixteen connections are used where a result depends on the number. SOCI recommends 10
// to 20 for ECR.
const sixteen = 16

func (b *bench) cacheCommand(ctx context.Context, dir, branch string, references ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.cache, append([]string{"-dir", dir, "-branch", branch, "-json"}, references...)...)
	cmd.Env = append(os.Environ(), b.env...)
	return cmd
}

// stocked is what a run of docker-cache did.
type stocked struct {
	outcome    string // of the last image
	downloaded int64  // bytes of layers
	copied     int64  // the same from other tarballs, not cloned
	wall       time.Duration
	stats            // of the link, for this run
	read       int64 // bytes by read and copy calls, of files, pipes and sockets
	fromDisk   int64 // bytes that a disk had to read for it
}

// stock runs docker-cache.
func (b *bench) stock(ctx context.Context, dir, branch, link string, tags ...string) stocked {
	return b.stockWith(ctx, nil, dir, branch, link, tags...)
}

// stockWith is stock with more flags.
func (b *bench) stockWith(ctx context.Context, flags []string, dir, branch, link string, tags ...string) (s stocked) {
	var references []string
	for _, tag := range tags {
		references = append(references, b.server.reference(link, tag))
	}
	cmd := b.cacheCommand(ctx, dir, branch, references...)
	cmd.Args = slices.Insert(cmd.Args, 1, flags...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	before := b.server.stats(ctx, link, -1)
	start := time.Now()
	check(cmd.Start())
	waitForEnd(cmd.Process.Pid)
	s.wall = time.Since(start)
	s.read = must(procField(cmd.Process.Pid, "io", "rchar:"))
	s.fromDisk = must(procField(cmd.Process.Pid, "io", "read_bytes:"))
	if err := cmd.Wait(); err != nil {
		check(fmt.Errorf("%s: %w\n%s", ours, err, stderr.String()))
	}
	s.stats = b.server.stats(ctx, link, -1).since(before)
	for d := json.NewDecoder(&stdout); d.More(); {
		var result record
		check(d.Decode(&result))
		s.outcome = result.Outcome
		s.downloaded += result.Downloaded
		s.copied += result.Copied
	}
	return s
}

// record is what docker-cache prints of an image.
type record struct {
	Image, Outcome string
	Downloaded     int64 `json:"bytes_downloaded"`
	Copied         int64 `json:"bytes_copied"`
}

// directory makes a directory in memory. Call remove in the end.
func (b *bench) directory() (dir string, remove func()) {
	dir = filepath.Join(b.scratch, "out")
	check(os.Mkdir(dir, 0o700))
	return dir, func() { check(os.RemoveAll(dir)) }
}

// measurePulls does every work over every link with every tool, in turns, so that
// what else the machine does hits all alike.
func (b *bench) measurePulls(ctx context.Context) {
	for _, link := range b.links {
		title := "(a) Straight from loopback"
		if link == limited {
			title = fmt.Sprintf("(b) %d MB/s per connection, %d ms latency", connectionRate/1_000_000, latency.Milliseconds())
		}
		t := &table{title: title, text: 2, head: []string{"work", "program", "runs", "wall, s", "CPU, s", "peak memory, MiB", "written, MiB"}}
		b.tables = append(b.tables, t)
		for _, name := range b.works {
			w := b.work(name)
			var rows []*row
			for _, t := range b.tools {
				rows = append(rows, &row{work: w.String(), program: t.name})
			}
			for _, i := range b.turns(link) {
				rows[i].add(b.pull(ctx, b.tools[i].pull, w, link))
			}
			t.addRows(rows, wall, cpu, peak, byBoth)
		}
	}
}

// turns returns the tools, by index, in the order in which they are run. Ours
// takes a turn before each of the others: all ratios depend on it, and over
// limited connections it takes the least time.
func (b *bench) turns(link string) (turns []int) {
	rounds, docker := b.repeat, 0
	if link == limited {
		rounds = b.repeatLimited
	}
	if slices.Contains(b.dockerLinks, link) {
		docker = b.repeatDocker
	}
	for round := range rounds {
		before := len(turns)
		for i, t := range b.tools[1:] {
			if t.name != "docker" || round < docker {
				turns = append(turns, 0, i+1)
			}
		}
		if len(turns) == before { // no other to compare with
			turns = append(turns, 0)
		}
	}
	return turns
}

// pull has a work done once, checks that it was, and removes the result.
func (b *bench) pull(ctx context.Context, pull puller, w work, link string) *usage {
	dir, remove := b.directory()
	defer remove()
	warm(warmTimes * int64(w.layers) * w.size)
	u := pull(ctx, b.server.reference(link, w.name), dir)
	checkTarball(dir, w)
	return u
}

// checkTarball notices a tool that only seems quick.
func checkTarball(dir string, w work) {
	found := must(filepath.Glob(filepath.Join(dir, "*.tar")))
	if len(found) != 1 {
		check(fmt.Errorf("want one tarball of %s, there are %d", w, len(found)))
	}
	if size, least := must(os.Stat(found[0])).Size(), int64(w.layers)*w.size; size < least {
		check(fmt.Errorf("the tarball of %s has %d bytes, its layers have %d", w, size, least))
	}
}

// measureKill ends docker-cache with SIGKILL at 90 % of the giant layer over
// limited connections, and runs it again. The other programs cannot resume: they
// download all of it again.
func (b *bench) measureKill(ctx context.Context) {
	if !b.kill || !slices.Contains(b.works, "giant") {
		return
	}
	w := b.work("giant")
	dir, remove := b.directory()
	defer remove()
	before, again := b.killed(ctx, dir, w)
	checkTarball(dir, w)
	percent := func(n int64) float64 { return 100 * float64(n) / float64(w.size) }
	b.count("(b) one giant layer, SIGKILL at 90 %, run again", "%.1f %% (%.1f MiB) in %.2f s; killed at %.1f %%, so %.1f MiB came twice",
		percent(again.downloaded), mib(again.downloaded), again.wall.Seconds(), percent(before), mib(before+again.downloaded-w.size))
}

// killed ends docker-cache with SIGKILL when the registry has sent 90 % of an image's layer, and
// runs it again. It returns how much was sent before.
func (b *bench) killed(ctx context.Context, dir string, w work) (before int64, again stocked) {
	start := b.server.stats(ctx, limited, -1)
	cmd := b.cacheCommand(ctx, dir, "main", b.server.reference(limited, w.name))
	check(cmd.Start())
	defer func() { _ = cmd.Process.Kill() }() // whatever happens
	b.server.stats(ctx, limited, start.Written+w.size*9/10)
	check(cmd.Process.Kill())
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		check(fmt.Errorf("%s ended before it was killed: %w", ours, err))
	}
	// It has got some more since the answer came.
	before = b.server.stats(ctx, limited, -1).since(start).Written
	return before, b.stock(ctx, dir, "main", limited, w.name)
}

// pairs are a mirror and an image's own registry, both with the image. Where the
// limit is decides whether reading from both pays; it is in bytes per second.
var pairs = []struct {
	title                             string
	mirrorTotal, ownTotal, connection int64
	latency                           time.Duration
}{
	{"each registry gives 100 MB/s in all", 100_000_000, 100_000_000, 0, latency},
	{"the mirror gives 200 MB/s in all, the own registry 50 MB/s", 200_000_000, 50_000_000, 0, latency},
	{"each connection gives 25 MB/s", 0, 0, connectionRate, latency},
	{"no limit but this machine", 0, 0, 0, 0},
}

// measureSources pulls the giant layer from each pair, with -all-sources and
// without, in turns.
func (b *bench) measureSources(ctx context.Context) {
	if !b.sources || !slices.Contains(b.works, "giant") {
		return
	}
	w := b.work("giant")
	t := &table{title: fmt.Sprintf("(c) Two registries that both have the image, %s", w), text: 1,
		head: []string{"limit", "runs", "mirror alone, wall, s", "`-all-sources`, wall, s", "CPU, s", "of what both give"}}
	b.tables = append(b.tables, t)
	for _, p := range pairs {
		mirror := b.server.repository(p.title + ", mirror")
		alone, both := &row{work: p.title, program: "mirror alone"}, &row{work: p.title, program: "-all-sources"}
		for range b.repeat {
			alone.add(b.pull(ctx, b.pullOurs("-mirror", mirror), w, p.title+", own"))
			both.add(b.pull(ctx, b.pullOurs("-mirror", mirror, "-all-sources"), w, p.title+", own"))
		}
		t.add(p.title, fmt.Sprint(b.repeat), alone.cell(wall, alone), both.cell(wall, alone), both.cell(cpu, alone), percentOf(p.mirrorTotal+p.ownTotal, w, both))
	}
}

// percentOf is how much of a limit, in bytes per second, the layers of a work came
// with; nothing without a limit.
func percentOf(limit int64, w work, r *row) string {
	if limit == 0 {
		return ""
	}
	return spread(r.values(func(u *usage) float64 {
		return 100 * float64(int64(w.layers)*w.size) / (u.Wall.Seconds() * float64(limit))
	})) + " %"
}
