//go:build linux

// Command benchmark measures docker-cache beside the programs that others use to
// make one tarball of an image (crane, regctl, skopeo; docker pull, tag and save),
// and load-image beside docker load. What is not installed is left out.
//
//	go run ./examples/internal/benchmark
//
// prints tables in Markdown. All programs get the same images from the same
// registry, which is another process, and write into the same directory in memory.
// Nothing but loopback is used. BENCHMARKS.md describes how it is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	runPart(os.Args)
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	exit(2, err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o, os.Stdout)
	stop()
	exit(1, err)
}

// runPart does what must be another process, if this program has run itself for
// it, and exits.
func runPart(args []string) {
	parts := map[string]func(){
		serveCommand:   func() { serve(args[2], os.Stdin, os.Stdout) },
		measureCommand: func() { measure(args[2:]) },
		uploadCommand:  func() { uploadFile(args[2]) },
		getCommand:     func() { getObject(args[2]) },
	}
	if len(args) > 2 && parts[args[1]] != nil {
		exit(1, catch(parts[args[1]]))
		os.Exit(0)
	}
}

// exit ends the program if there is an error.
func exit(code int, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchmark: %v\n", err)
		os.Exit(code)
	}
}

// failure is the panic of an error that ends the benchmark.
type failure struct{ error }

// check ends the benchmark if there is an error, as a test's FailNow does: what is
// deferred still happens, and [catch] returns the error.
func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// must is check for a call that returns a value too.
func must[T any](value T, err error) T {
	check(err)
	return value
}

// catch returns the error that ends a part of the benchmark.
func catch(do func()) (err error) {
	defer func() {
		reason := recover()
		if f, ok := reason.(failure); ok {
			err = f.error
		} else if reason != nil {
			panic(reason)
		}
	}()
	do()
	return nil
}

// A bench is one run of the benchmark.
type bench struct {
	*options
	scratch string   // a directory in memory
	env     []string // of the programs that are measured
	server  *server
	cache   string  // path of docker-cache
	engine  *engine // nil if docker is left out
	tools   []tool  // docker-cache is the first
	more    []tool  // those that take part in -refused alone
	tables  []*table
	counts  [][]string // what is not in a table of its own
}

// run makes the images, measures, and prints. It leaves nothing behind that it
// has started or made.
func run(ctx context.Context, o *options, stdout io.Writer) (err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(o.dir, &s); err == nil && s.Type != unix.TMPFS_MAGIC {
		fmt.Fprintf(os.Stderr, "benchmark: %s is not in memory: the disk is measured too, and results vary with it\n", o.dir)
	}
	scratch, err := os.MkdirTemp(o.dir, "dcb") // short: docker's socket is in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	// No configuration of the machine, and no temporary file on its disk.
	env := []string{"DOCKER_CONFIG=" + scratch, "TMPDIR=" + scratch, "REGCTL_CONFIG=" + filepath.Join(scratch, "regctl.json")}
	b := &bench{options: o, scratch: scratch, env: env}
	return catch(func() {
		b.makeImages()
		b.server = startServer(ctx, scratch)
		defer b.server.stop()
		defer func() { b.engine.stop() }()
		b.findTools(ctx)
		b.measurePulls(ctx)
		b.measureKill(ctx)
		b.measureSources(ctx)
		b.measureRefresh(ctx)
		b.measureLoads(ctx)
		b.measureSlow(ctx)
		b.measureRefused(ctx)
		b.measureConnections(ctx)
		b.measureBucket(ctx)
		b.measureRoots(ctx)
		b.measureFill(ctx)
		b.measureKeep(ctx)
		b.measureWays(ctx)
		b.print(stdout)
	})
}

// count adds a row to the last table.
func (b *bench) count(what, format string, args ...any) {
	b.counts = append(b.counts, []string{what, fmt.Sprintf(format, args...)})
}

// print writes everything in Markdown, in the order of the titles: (a) to (p).
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%d CPUs, %s, %s/%s.", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, t := range b.everyTool()[1:] {
		fmt.Fprintf(w, " %s: %s.", t.name, t.version)
	}
	fmt.Fprintln(w)
	slices.SortStableFunc(b.tables, func(x, y *table) int { return strings.Compare(x.title, y.title) })
	counts := &table{title: "Counts", text: 2, head: []string{"what", "measured"}, rows: b.counts}
	for _, t := range append(b.tables, counts) {
		t.print(w)
	}
}

type options struct {
	dir                                 string
	scale, ratio                        float64
	repeat, repeatLimited, repeatDocker int
	works, tools, links, dockerLinks    []string
	kill, sources, refresh, loads, slow bool
	bucket, roots, fill, keep, ways     bool
	waysSizes, waysRates                []float64 // GiB, MB/s
	waysRegistries                      []string
	waysLongest                         time.Duration
	refused                             int
	connections                         []int
	loadDockerd                         string
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "/dev/shm", "the `DIR`ectory for images and results, best in memory, with 8 GiB to spare; what is made there is removed")
	f.Float64Var(&o.scale, "scale", 1, "makes every layer `FACTOR` times as large")
	f.Float64Var(&o.ratio, "ratio", 1, "how many times as large as the layers the files in them are; real images have 2.5 and more")
	f.IntVar(&o.repeat, "repeat", 3, "how often each program does each work, `N`")
	f.IntVar(&o.repeatLimited, "repeat-limited", 0, "the same for the limited connections, where a program that reads one layer after the other needs minutes (default: as -repeat)")
	f.IntVar(&o.repeatDocker, "repeat-docker", 1, "the same for docker, which is slow")
	list(f, &o.works, "works", "`LIST` of works", "giant", "big", "small")
	list(f, &o.tools, "tools", "`LIST` of programs, of which one that is not installed is left out", ours, "crane", "regctl", "skopeo", "oras", "docker")
	list(f, &o.links, "links", "`LIST` of links to the registry, in the order to measure", straight, limited)
	list(f, &o.dockerLinks, "docker-links", "`LIST` of links that docker is measured over", straight, limited)
	f.BoolVar(&o.kill, "kill", true, "kill docker-cache at 90 % of the giant layer and run it again, into a directory and into the bucket")
	f.BoolVar(&o.sources, "sources", true, "pull the giant layer from two registries, with -all-sources and without")
	f.BoolVar(&o.refresh, "refresh", true, "refresh an image that is there, on XFS, btrfs and ext4 where they can be mounted")
	f.BoolVar(&o.loads, "loads", true, "load tarballs into a Docker Engine, if docker is among the programs; its images and the tarballs are in $TMPDIR, which is best on a disk as in real use, with 10 GiB to spare")
	f.BoolVar(&o.slow, "slow", true, "pull over connections of which one is slow, from a mirror that becomes slow, and beside an image that drips")
	f.BoolVar(&o.bucket, "bucket", true, "stock into a bucket of versitygw, if that is installed, and load from there, if docker is among the programs")
	f.BoolVar(&o.roots, "roots", true, "start engines on clones of their data root, if docker is among the programs, as root")
	f.BoolVar(&o.fill, "fill", true, "have one client, and 13 at once, take an image from serve-cache that it has to fetch")
	f.BoolVar(&o.keep, "keep", true, "publish an image that keep-loaded watches, if docker is among the programs")
	f.BoolVar(&o.ways, "ways", true, "measure each way to give an engine an image, and what cache-admin advise predicts of it, if docker is among the programs, as root, where a disk can be throttled")
	numbers(f, &o.waysSizes, "ways-sizes", "`LIST` of the images' sizes for -ways, in GiB; memory for three times the largest, or more with -ratio, is needed", 1, 4)
	numbers(f, &o.waysRates, "ways-rates", "`LIST` of the storage's rates for -ways, in MB/s", 20, 50, 200, 1000)
	list(f, &o.waysRegistries, "ways-registries", "`LIST` of registries for -ways: 25 MB/s for each connection, for all together", "each", "all")
	f.DurationVar(&o.waysLongest, "ways-longest", 2*time.Minute, "leave out what takes longer for -ways to read once, `DURATION`")
	f.IntVar(&o.refused, "refused", 20, "how often docker-cache pulls from a registry that refuses requests that come too fast, `N`; the others as often as -repeat, or once more")
	o.connections = []int{1, 2, 4, 8, 16, 32, 64}
	f.Func("connections", "`LIST` of -connections of docker-cache to compare its default with; empty for none (default 1,2,4,8,16,32,64)", func(value string) error {
		o.connections = nil
		for _, text := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return fmt.Errorf("%q: want numbers from 1 on", text)
			}
			o.connections = append(o.connections, n)
		}
		return nil
	})
	f.StringVar(&o.loadDockerd, "load-dockerd", dockerd, "for loads, the `PROGRAM` of a Docker Engine from 28 on, to measure it with containerd's store")
	err := f.Parse(args)
	switch {
	case err != nil:
		return nil, err
	case f.NArg() > 0:
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	case o.scale <= 0 || o.ratio < 1 || o.ratio > 4 || o.repeat < 1 || o.repeatLimited < 0 || o.repeatDocker < 0 || o.refused < 0:
		return nil, errors.New("-scale and the repetitions must be positive, -ratio from 1 to 4")
	case !slices.Contains(o.tools, ours):
		return nil, fmt.Errorf("%s must be among the programs: the others are compared with it", ours)
	case o.repeatLimited == 0:
		o.repeatLimited = o.repeat
	}
	return o, nil
}

// numbers defines a flag for positive numbers.
func numbers(f *flag.FlagSet, values *[]float64, name, usage string, standard ...float64) {
	*values = standard
	f.Func(name, fmt.Sprintf("%s (default %s)", usage, strings.ReplaceAll(strings.Trim(fmt.Sprint(standard), "[]"), " ", ",")), func(value string) error {
		*values = nil
		for text := range strings.SplitSeq(value, ",") {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || !(n > 0) || math.IsInf(n, 0) {
				return fmt.Errorf("%q: want positive numbers", text)
			}
			*values = append(*values, n)
		}
		return nil
	})
}

// list defines a flag for some of the known names; the default is all of them.
func list(f *flag.FlagSet, names *[]string, name, usage string, known ...string) {
	*names = known
	all := strings.Join(known, ",")
	f.Func(name, fmt.Sprintf("%s (default %s)", usage, all), func(value string) error {
		*names = strings.Split(value, ",")
		for _, n := range *names {
			if !slices.Contains(known, n) {
				return fmt.Errorf("unknown %q, want some of %s", n, all)
			}
		}
		return nil
	})
}
