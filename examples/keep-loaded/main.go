// Keep-loaded keeps the images of a directory or a bucket of tarballs in an engine that lives
// longer than a job: it loads what is new, and removes what it has loaded before and nothing uses
// any more.
//
//	keep-loaded [-dir DIR] [-branch BRANCH,...] [-pin] [-once] [PATTERN...]
//
// See -h for the flags and the exit codes.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/loader/keep"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/engineflags"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/tagging"
)

var program = cli.Program{
	Name: "keep-loaded",
	Usage: `Usage: keep-loaded [flags] [PATTERN...]

Watches the tarballs that docker-cache stocks in DIR, and keeps the container engine
of this machine loaded with their images, until it is interrupted: an image that is
new is loaded, no more of it than the engine lacks, and older versions that nothing
uses are removed. Only what it has loaded itself is ever removed.

A PATTERN is of tarballs' names, with or without ".tar": * is any text, ? is one
character. Without one all are watched.

ADDRESS/healthz answers 200 with what is done now, or 503 with what is wrong;
ADDRESS/metrics is for Prometheus. There is no password.
`,
	Notes: `Environment: DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_TLS_VERIFY,
DOCKER_TLS, DOCKER_CERT_PATH, CONTAINERD_NAMESPACE, STATE_DIRECTORY, XDG_STATE_HOME,
XDG_RUNTIME_DIR, TMPDIR; for a bucket the variables of AWS's SDK.

Exit codes: 0 with -once all images are there, or it had a reason to wait, 1 it cannot
begin, or with -once at least one image failed, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{flags: f.FlagSet, rules: tagging.PyTorchRules(), busyFor: cli.Duration(6 * time.Hour)}
		f.StringVar(&o.dir, "dir", "", store.Usage)
		o.s3.RegisterReads(f.FlagSet)
		f.Var(&o.branches, "branch", "only tarballs of images that were built from this `BRANCH`, by the suffix of their names; several are separated by commas (default: all)")
		f.Var(&o.rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas; the SUFFIX * is made of the branch")
		o.at.Register(f.FlagSet, &o.keep.Load)
		f.IntVar(&o.keep.Versions, "versions", 2, "how many versions, `N`, of each tarball's image stay in the engine, the newest included; 0: all")
		f.BoolVar(&o.keep.Pin, "pin", false, "mark the newest version as one that Kubernetes' kubelet does not remove: containerd only")
		f.StringVar(&o.keep.State, "state", "", "the `FILE` that records what was loaded (default: one below STATE_DIRECTORY, XDG_STATE_HOME or ~/.local/state)")
		f.BoolVar(&o.once, "once", false, "look once, load what is missing, and end")

		f.Section("Time")
		f.Var((*cli.Duration)(&o.keep.LookEvery), "interval", "wait so long, `DURATION`, between two looks (default 500ms for a directory, 30s for a bucket)")
		o.keep.CheckEvery = time.Minute
		f.Var((*cli.Duration)(&o.keep.CheckEvery), "check", "ask the engine once in each `DURATION` whether it still has the images")
		o.keep.StalledAfter = 30 * time.Minute
		f.Var((*cli.DurationOrNone)(&o.keep.StalledAfter), "stalled-after", "be unhealthy when a load, or a question to the engine or the store, makes no progress for this `DURATION`; some engines report none while they unpack; 0: never")
		f.Var(&o.busy, "busy", "load and remove nothing while a job runs: as long as a file exists, when `WHAT` has a \"/\", else as long as a process of this name runs; may be repeated")
		f.Var(&o.busyFor, "busy-for", "ignore a file of -busy that is older than this `DURATION`")

		f.Section("Observation")
		f.StringVar(&o.listen, "addr", "127.0.0.1:9477", "where to answer /healthz and /metrics, as `HOST:PORT`; port 0 is any that is free; off is nowhere. With -once it does not listen")
		o.history.Register(f.FlagSet)
		f.JSONFlag("print one JSON object for each load")
		f.VerboseFlag(cli.VerboseUsage)

		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	flags       *flag.FlagSet
	dir, listen string
	branches    cli.CommaList
	rules       tagging.Rules
	s3          store.S3
	busy        cli.List
	busyFor     cli.Duration
	once        bool
	keep        keep.Options
	at          engineflags.Flags
	history     report.History
}

func (o *options) Check(args []string) (err error) {
	if err := cli.FlagsFirst(args, "a PATTERN"); err != nil {
		return err
	}
	if o.keep.Match, err = o.match(args); err != nil {
		return err
	}
	if o.keep.Versions < 0 {
		return fmt.Errorf("-versions %d: want 0 or more", o.keep.Versions)
	}
	if o.listen != "off" {
		host, _, err := net.SplitHostPort(o.listen)
		switch {
		case err != nil:
			return fmt.Errorf("-addr %q: %w: want HOST:PORT, or off", o.listen, err)
		case host == "":
			return fmt.Errorf("-addr %q would answer every network that this machine is on: name the HOST, 0.0.0.0 if that is what you want", o.listen)
		}
	}
	if err := errors.Join(o.at.Check(), o.history.Check()); err != nil {
		return err
	}
	if o.dir, err = o.s3.Dir(o.dir, o.flags); err != nil {
		return err
	}
	if o.keep.State == "" {
		o.keep.State, err = o.stateFile()
	}
	if o.keep.LookEvery == 0 && store.IsBucket(o.dir) {
		o.keep.LookEvery = 30 * time.Second
	}
	return err
}

// match returns what reports whether a tarball is watched.
func (o *options) match(patterns []string) (func(name string) bool, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return nil, fmt.Errorf("PATTERN %q: %w", p, cmp.Or(err, errors.New("it is empty: was a variable not set?")))
		}
	}
	var suffixes []string
	for _, branch := range o.branches {
		suffix, err := tagging.Suffix(branch, o.rules)
		if err != nil {
			return nil, fmt.Errorf("-branch: %w: give it one with -rules BRANCH=SUFFIX", err)
		}
		suffixes = append(suffixes, "_"+suffix)
	}
	return func(name string) bool {
		stem := strings.TrimSuffix(name, ".tar")
		return (len(patterns) == 0 || oneOf(patterns, func(p string) bool {
			matched, _ := path.Match(strings.TrimSuffix(p, ".tar"), stem)
			return matched
		})) && (len(suffixes) == 0 || oneOf(suffixes, func(s string) bool { return strings.HasSuffix(stem, s) }))
	}, nil
}

// stateFile returns the default file, which is another one for each engine and directory.
func (o *options) stateFile() (string, error) {
	dir := os.Getenv("STATE_DIRECTORY") // systemd's
	if dir == "" {
		dir = os.Getenv("XDG_STATE_HOME")
		if home, err := os.UserHomeDir(); dir == "" && err == nil {
			dir = filepath.Join(home, ".local", "state")
		}
		if dir == "" {
			return "", errors.New("-state was not given, and its default cannot be made: HOME is not set")
		}
	}
	at, err := filepath.Abs(o.dir)
	if store.IsBucket(o.dir) || err != nil {
		at = o.dir
	}
	key := sha256.Sum256([]byte(at + "\n" + o.at.Host.Address + "\n" + os.Getenv("CONTAINERD_NAMESPACE")))
	return filepath.Join(dir, fmt.Sprintf("keep-loaded-%x.json", key[:6])), nil
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if err := o.run(ctx, out); err != nil && ctx.Err() == nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}

func (o *options) run(ctx context.Context, out *cli.Output) error {
	from, err := store.Open(ctx, o.dir, nil, &o.s3)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.keep.State), 0o700); err != nil {
		return err
	}
	o.keep.Logger = out.Log
	o.history.Open("keep-loaded", store.Local(o.dir), out)
	o.keep.Loaded = func(e keep.Event) { o.history.Append(ctx, loaded(e, o.dir, out)) }
	if len(o.busy) > 0 {
		o.keep.Busy = busy(o.busy, time.Duration(o.busyFor))
	}
	watched := keep.Listed(from)
	if dir, ok := from.(*cache.Dir); ok {
		watched = keep.Directory(dir)
	}
	keeper, err := keep.New(watched, func(ctx context.Context) (loader.Engine, error) { return loader.Open(ctx, o.at.Host) }, &o.keep)
	if err != nil {
		return err
	}
	if o.once {
		return lookOnce(ctx, keeper, out)
	}
	if o.listen == "off" {
		return keeper.Run(ctx)
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: keeper, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	go func() { _ = s.Serve(listener) }() // ends with ErrServerClosed
	defer s.Close()
	out.Remark(fmt.Sprintf("watching %s, health at http://%s/healthz", from.Path(), listener.Addr()))
	return keeper.Run(ctx)
}

// lookOnce looks once. What failed was printed, image by image.
func lookOnce(ctx context.Context, keeper *keep.Keeper, out *cli.Output) error {
	err := keeper.Once(ctx)
	s := keeper.Status()
	switch {
	case s.StoreError != nil || s.EngineError != nil:
		return errors.Join(s.StoreError, s.EngineError)
	case errors.Is(err, keep.ErrBusy):
		out.Remark(fmt.Sprintf("nothing is loaded now: %s", s.Busy))
	case err != nil:
		out.Failed()
	}
	return nil
}

// loaded prints what a load has done, and returns it for the log. One that failed is tried again.
func loaded(e keep.Event, dir string, out *cli.Output) history.Record {
	r := &report.Loaded{
		Image: e.Image, Tarball: store.Join(dir, e.Name), Digest: e.Digest, Outcome: string(e.Result.Outcome),
		BytesStreamed: e.Result.Streamed, BytesTotal: e.Result.Total, Start: e.Began, Engine: e.Engine,
	}
	if e.Err != nil {
		out.Report(fmt.Errorf("%q: %w", e.Name, e.Err))
	}
	r.End(e.Err, report.Failed, out.Advice(e.Err))
	r.Phases = report.PhasesOf(e.Phases)
	out.Print(r, r.Text())
	return r.Record()
}

// oneOf reports whether one of the texts has the property.
func oneOf(texts []string, has func(string) bool) bool {
	for _, t := range texts {
		if has(t) {
			return true
		}
	}
	return false
}

// busy returns what reports that a file exists, which is not too old, or that a process runs.
func busy(what []string, notOlder time.Duration) func() string {
	return func() string {
		for _, w := range what {
			if strings.Contains(w, "/") {
				if info, err := os.Stat(w); err == nil && time.Since(info.ModTime()) < notOlder {
					return w + " exists"
				}
			} else if runs(w) {
				return "the process " + w + " runs"
			}
		}
		return ""
	}
}

// runs reports whether a process of this name runs: what Linux shows of it in
// /proc/PID/comm, 15 bytes at most.
func runs(name string) bool {
	name = name[:min(len(name), 15)]
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range files {
		if comm, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(comm)) == name {
			return true
		}
	}
	return false
}
