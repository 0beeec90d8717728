package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/atomicfile"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/plot"
	"github.com/dockercache/dockercache/examples/internal/registryflags"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/registry"
)

// An Advisor is what advise is run with.
type Advisor struct {
	// Image is a reference, or the name or path of a tarball.
	Image    string
	Platform string // "" is this machine's
	Registry registryflags.Flags
	Keychain authn.Keychain // nil: what the flags say
	S3       *store.S3
	// Host is where the engine is.
	Host loader.Host
	// Root is the engine of data roots; without a kind they are not measured.
	Root dataroot.Engine
	// Shared: all machines use the directory, also if its file system does not show it.
	Shared bool
	Fleet  advise.Fleet
	// Time and Bytes bound each sample.
	Time  time.Duration
	Bytes int64
	// Plot is a file for pictures; "" for none.
	Plot string
	// Start starts a program that is like load-image, and waits for its end. Nil: how long that takes is assumed.
	Start func(ctx context.Context) error
}

// advised is what advise prints.
type advised struct {
	Image     string `json:"image"`
	Digest    string `json:"digest"`
	Bytes     int64  `json:"bytes"`  // of layers
	Layers    int    `json:"layers"` // distinct
	Directory string `json:"directory"`
	Engine    string `json:"engine"`
	CPUs      int    `json:"cpus"`

	Way    string  `json:"way"` // that is recommended
	Cache  bool    `json:"cache"`
	Saved  float64 `json:"saved_seconds_per_job"`
	Reason string  `json:"reason"`

	JobsPerDay    float64 `json:"jobs_per_day"`
	Machines      int     `json:"machines"`
	BuildsPerDay  float64 `json:"builds_per_day"`
	New           float64 `json:"new"`
	JobsPerEngine float64 `json:"jobs_per_engine"`

	Ways    []advisedWay    `json:"ways"`
	Rates   []advisedRate   `json:"rates"`
	Samples []advisedSample `json:"samples"`
	Assumed []string        `json:"assumed"`
	Missing []string        `json:"not_measured"`
	Seconds float64         `json:"seconds"`
}

type advisedWay struct {
	Name       string  `json:"name"`
	Possible   bool    `json:"possible"`
	Why        string  `json:"why"` // not possible
	Cold       float64 `json:"seconds_cold"`
	Delta      float64 `json:"seconds_delta"`
	Present    float64 `json:"seconds_present"`
	Job        float64 `json:"seconds_per_job"`
	Registry   float64 `json:"seconds_per_job_registry"` // of seconds_per_job
	Storage    float64 `json:"seconds_per_job_storage"`
	EngineTime float64 `json:"seconds_per_job_engine"`
	Other      float64 `json:"seconds_per_job_other"`
	Once       float64 `json:"seconds_once"`
	Background float64 `json:"seconds_background_per_day"`

	RegistryBytes int64 `json:"bytes_registry_per_day"`
	StorageBytes  int64 `json:"bytes_storage_per_day"`
	BreakEven     int64 `json:"break_even_jobs"` // -1: never
}

type advisedRate struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // seconds, bytes/s
}

type advisedSample struct {
	Part    string  `json:"part"`
	What    string  `json:"what"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Note    string  `json:"note"`
}

// The parts that are measured.
const (
	directoryPart = "directory"
	registryPart  = "registry"
	enginePart    = "engine"
	rootPart      = "data root"
)

// Advise measures what decides, and prints what each way to give the image to jobs costs, and one
// recommendation. A part that cannot be measured is left out, with the ways that need it.
func Advise(ctx context.Context, at string, dirErr error, dir store.Store, a *Advisor, out *cli.Output) error {
	begun := time.Now()
	subject, err := a.subject(ctx, dir, out)
	if err != nil {
		return err
	}
	defer subject.close()
	m := &measurement{out: out, record: &advised{Missing: []string{}, Samples: []advisedSample{}}}
	m.rates.CPUs = runtime.NumCPU()
	m.part(directoryPart, func() ([]measure.Sample, error) {
		if dirErr != nil {
			return nil, dirErr
		}
		return m.directory(ctx, dir, subject, a)
	})
	m.part(registryPart, func() (samples []measure.Sample, err error) {
		if subject.remote == nil {
			return nil, subject.remoteErr
		}
		m.rates.Registry, samples, err = measure.Registry(ctx, subject.image, subject.remote, &measure.RegistryOptions{
			One: measure.Limit{Time: a.Time, Bytes: a.Bytes / 4}, All: measure.Limit{Time: a.Time, Bytes: a.Bytes},
		})
		return samples, err
	})
	m.part(enginePart, func() ([]measure.Sample, error) {
		samples, err := m.engine(ctx, subject, a)
		if err != nil && dir != nil && ctx.Err() == nil {
			if recorded, noneErr := m.recorded(dir.Path(), subject); noneErr == nil {
				return recorded, nil
			}
		}
		return samples, err
	})
	m.part(rootPart, func() (samples []measure.Sample, err error) {
		switch {
		case a.Root.Kind == "":
			return nil, errors.New("no -engine was given")
		case dir == nil || store.IsBucket(dir.Path()):
			return nil, errors.New("it needs a directory")
		}
		m.rates.Root, samples, err = measure.Root(ctx, dir.Path(), a.Root)
		return samples, err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	image := advise.Image{Layers: subject.layers()}
	ways, err := advise.Predict(m.rates, image, a.Fleet)
	if err != nil {
		return err
	}
	m.fill(ways, subject, at, a, time.Since(begun))
	out.Print(m.record, m.record.text())
	if a.Plot != "" {
		if err := m.record.plot(ways, a); err != nil {
			return err
		}
	}
	if m.record.Way == "" {
		return errors.New("nothing can be recommended: too little was measured")
	}
	return nil
}

// A subject is the image, and where its bytes are.
type subject struct {
	image     *tarball.Image
	src       tarball.Source // the tarball if there is one, else the registry
	remote    tarball.Source // the registry; nil if it cannot be asked: see remoteErr
	remoteErr error
	tarball   *tarball.Tarball // nil if there is none
}

func (s *subject) close() {
	if s.tarball != nil {
		_ = s.tarball.Close()
	}
}

func (s *subject) layers() (sizes []int64) {
	seen := map[v1.Hash]bool{}
	for _, l := range s.image.Layers() {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			sizes = append(sizes, l.Size)
		}
	}
	return sizes
}

// subject finds the image: a tarball of that name, or path, or else a reference.
func (a *Advisor) subject(ctx context.Context, dir store.Store, out *cli.Output) (*subject, error) {
	client, err := a.Registry.Client(out, registry.Options{Keychain: a.Keychain})
	if err != nil {
		return nil, err
	}
	platform := registry.DefaultPlatform()
	if a.Platform != "" {
		if platform, err = registry.ParsePlatform(a.Platform); err != nil {
			return nil, err
		}
	}
	t, err := a.openTarball(ctx, dir)
	if err != nil {
		return nil, err
	}
	if t != nil {
		s := &subject{image: t.Image, src: t, tarball: t}
		// By its digest: the reference may mean another build by now.
		resolved, err := client.Resolve(ctx, platform, t.Sources()...)
		if err == nil {
			s.remote = resolved
		}
		s.remoteErr = err
		return s, nil
	}
	resolved, err := client.Resolve(ctx, platform, a.Image)
	if err != nil {
		return nil, fmt.Errorf("%s is no tarball in the directory, and as an image: %w", cli.Printable(a.Image), err)
	}
	manifest, config, err := resolved.Content(ctx)
	if err != nil {
		return nil, err
	}
	image, err := tarball.NewImage(tagged(a.Image), manifest, config)
	if err != nil {
		return nil, err
	}
	return &subject{image: image, src: resolved, remote: resolved}, nil
}

// tagged returns a reference as a tarball can have it: with a tag, and without a digest.
func tagged(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	if t, ok := named.(reference.Tagged); ok {
		return reference.FamiliarName(named) + ":" + t.Tag()
	}
	return reference.FamiliarName(named) + ":latest"
}

// openTarball opens the tarball that the image is named by; nil if there is none.
func (a *Advisor) openTarball(ctx context.Context, dir store.Store) (*tarball.Tarball, error) {
	name := strings.TrimSuffix(a.Image, ".tar") + ".tar"
	if !store.IsBucket(a.Image) {
		if _, err := os.Stat(name); err == nil {
			return tarball.Open(name)
		}
	}
	if store.IsBucket(a.Image) {
		return open(ctx, name, a.S3)
	}
	if dir == nil || filepath.Base(name) != name || strings.ContainsAny(a.Image, ":@") {
		return nil, nil
	}
	t, err := dir.Get(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		if strings.HasSuffix(a.Image, ".tar") {
			return nil, fmt.Errorf("%s is neither here nor in %s: %w", cli.Printable(a.Image), dir.Path(), fs.ErrNotExist)
		}
		return nil, nil
	}
	return t, err
}

// A measurement is what was measured so far.
type measurement struct {
	out    *cli.Output
	rates  advise.Rates
	record *advised
}

// part measures a part. Why it cannot is not an error: the ways that need it say so.
func (m *measurement) part(name string, do func() ([]measure.Sample, error)) {
	m.out.Log.Info("measuring", "part", name)
	samples, err := do()
	for _, s := range samples {
		m.record.Samples = append(m.record.Samples, advisedSample{name, s.What, s.Bytes, s.Took.Seconds(), s.Note})
	}
	if err != nil {
		m.record.Missing = append(m.record.Missing, name+": "+err.Error())
	}
}

func (m *measurement) directory(ctx context.Context, dir store.Store, s *subject, a *Advisor) (samples []measure.Sample, err error) {
	limit := measure.Limit{Time: a.Time, Bytes: a.Bytes}
	if b, ok := dir.(measure.Store); ok && store.IsBucket(dir.Path()) {
		limit.Bytes /= 4 // all of it is in memory
		m.rates.Storage, samples, err = measure.Bucket(ctx, b, &measure.BucketOptions{Limit: limit})
		return samples, err
	}
	o := &measure.DirectoryOptions{Limit: limit}
	if s.tarball != nil {
		o.Existing = s.tarball.Name()
	}
	m.rates.Storage, samples, err = measure.Directory(ctx, dir.Path(), o)
	if err == nil && a.Shared {
		m.rates.Storage.Shared = true
	}
	return samples, err
}

func (m *measurement) engine(ctx context.Context, s *subject, a *Advisor) (samples []measure.Sample, err error) {
	engine, err := loader.Open(ctx, a.Host)
	if err != nil {
		return nil, err
	}
	m.record.Engine = a.Host.Address
	if d, ok := engine.(loader.Describer); ok {
		if text, err := d.Describe(ctx); err == nil {
			m.record.Engine = text
		}
	}
	m.rates.Engine, samples, err = measure.Engine(ctx, engine, s.image, s.src, &measure.EngineOptions{
		Limit: measure.Limit{Time: 4 * a.Time, Bytes: a.Bytes / 4}, Ask: dockerAsks(a.Host), Start: a.Start,
		Open: func(ctx context.Context) (loader.Engine, error) { return loader.Open(ctx, a.Host) },
	})
	return samples, err
}

// dockerAsks returns what asks an engine for an image by Docker's client, podman too; nil where that is not
// installed, and for containerd.
func dockerAsks(host loader.Host) func(ctx context.Context, reference string) error {
	program, err := exec.LookPath("docker")
	if err != nil || strings.HasPrefix(host.Address, "containerd:") {
		return nil
	}
	address := host.Address
	if scheme, at, _ := strings.Cut(address, "://"); scheme == "http" || scheme == "https" {
		address = "tcp://" + at // the client has no other name for it
	}
	tls, verify := "", ""
	if host.TLS {
		if tls = "1"; !host.SkipVerify {
			verify = "1"
		}
	}
	// Empty is unset: its own settings are of another engine.
	env := append(os.Environ(), "DOCKER_HOST="+address, "DOCKER_TLS="+tls, "DOCKER_TLS_VERIFY="+verify, "DOCKER_CERT_PATH="+host.CertDir)
	return func(ctx context.Context, reference string) error {
		cmd := exec.CommandContext(ctx, program, "image", "inspect", reference)
		cmd.Env = env
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("docker image inspect: %w: %s", err, cli.Printable(strings.TrimSpace(stderr.String())))
		}
		return nil
	}
}

// recordedFor is how old recorded loads may be that say how fast the engine is.
const recordedFor = 90 * 24 * time.Hour

// recorded finds out how fast the engine is by whole loads of the image, of any version, that are recorded
// in a directory. Of several kinds of engine that of the last load counts.
func (m *measurement) recorded(dir string, s *subject) ([]measure.Sample, error) {
	records, _, err := history.Read(dir, time.Now().Add(-recordedFor))
	if err != nil {
		return nil, err
	}
	var loads []measure.Load
	kind := ""
	sample := measure.Sample{}
	for _, r := range slices.Backward(records) { // the last first
		if r.Kind != history.Load || r.Outcome != history.Loaded || repositoryOf(r.Image) != repositoryOf(s.image.Reference()) || kind != "" && r.Engine != kind {
			continue
		}
		kind = r.Engine
		l := measure.Load{Bytes: r.BytesStreamed, Stream: durationOf(r.Phases[timing.Stream]), Engine: durationOf(r.Phases[timing.Engine])}
		l.Fixed = durationOf(r.Seconds) - l.Stream - l.Engine
		loads = append(loads, l)
		sample.Bytes, sample.Took = sample.Bytes+r.BytesStreamed, sample.Took+durationOf(r.Seconds)
	}
	if m.rates.Engine, err = measure.Loads(loads, kind == "podman" || kind == "containerd"); err != nil {
		return nil, err
	}
	m.record.Engine = cmp.Or(kind, "an engine") + ", by its recorded loads"
	sample.What = english.Plural(len(loads), "recorded load", "")
	return []measure.Sample{sample}, nil
}

// repositoryOf returns a complete repository; "" of what is no reference.
func repositoryOf(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return named.Name()
}

func durationOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (m *measurement) fill(ways []advise.Way, s *subject, at string, a *Advisor, took time.Duration) {
	r := m.record
	sizes := s.layers()
	r.Image, r.Digest, r.Bytes, r.Layers = s.image.Reference(), s.image.Digest().String(), advise.Image{Layers: sizes}.Size(), len(sizes)
	r.Directory, r.CPUs, r.Seconds = at, m.rates.CPUs, took.Seconds()
	f := a.Fleet
	r.JobsPerDay, r.Machines, r.BuildsPerDay, r.New, r.JobsPerEngine = f.JobsPerDay, f.Machines, f.BuildsPerDay, f.New, f.JobsPerEngine
	best := advise.Recommend(ways, nil)
	r.Way, r.Cache, r.Saved, r.Reason = best.Way, best.Cache, best.Saved, best.Reason
	for _, w := range ways {
		r.Ways = append(r.Ways, advisedWay{
			w.Name, w.Possible, w.Why, w.Cold.Total(), w.Delta.Total(), w.Present.Total(),
			w.Job.Total(), w.Job.Registry, w.Job.Storage, w.Job.Engine, w.Job.Other, w.Once, w.Background,
			whole(w.RegistryBytes), whole(w.StorageBytes), w.BreakEven,
		})
	}
	m.fillRates()
	r.Assumed = []string{
		fmt.Sprintf("%s a day on %s, %s a day, of which %.3g %% is new (-jobs-per-day, -machines, -builds-per-day, -new)",
			count(f.JobsPerDay, "job"), count(float64(f.Machines), "machine"), count(f.BuildsPerDay, "build"), 100*f.New),
	}
	switch {
	case f.JobsPerEngine == 0:
		r.Assumed = append(r.Assumed, "engines keep their images from job to job (-jobs-per-engine 0)")
	default:
		r.Assumed = append(r.Assumed, fmt.Sprintf("an engine's images live for %s (-jobs-per-engine)", count(f.JobsPerEngine, "job")))
	}
	if st := m.rates.Storage; st != nil {
		switch {
		case st.Shared && !st.Bucket:
			r.Assumed = append(r.Assumed, "all machines share the directory")
		case !st.Bucket:
			r.Assumed = append(r.Assumed, "each machine has such a directory of its own (with -shared they share one)")
		}
		if !st.Reflink && m.rates.Root != nil {
			r.Assumed = append(r.Assumed, "unpacked, the image has 2.5 times its size")
		}
	}
}

func count(n float64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Ftoa(n) + " " + what + "s"
}

// whole is a number of bytes that may be any float.
func whole(v float64) int64 {
	if v >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(v)
}

const (
	perSecond = "bytes/s"
	inSeconds = "seconds"
)

func (m *measurement) fillRates() {
	m.record.Rates = []advisedRate{}
	add := func(name string, value float64, unit string) {
		m.record.Rates = append(m.record.Rates, advisedRate{name, value, unit})
	}
	if s := m.rates.Storage; s != nil {
		add("directory_read_one", s.ReadOne, perSecond)
		add("directory_read_many", s.ReadMany, perSecond)
		add("directory_write", s.Write, perSecond)
		add("directory_lock", s.Lock, inSeconds)
		add("directory_rename", s.Rename, inSeconds)
		if s.Look > 0 {
			add("directory_look", s.Look, inSeconds)
		}
		add("directory_reflink", map[bool]float64{true: 1}[s.Reflink], "")
	}
	if s := m.rates.Registry; s != nil {
		add("registry_first_byte", s.FirstByte, inSeconds)
		add("registry_connection", s.Connection, perSecond)
		add("registry_all", s.All, perSecond)
	}
	if s := m.rates.Engine; s != nil {
		add("engine_fixed", s.Fixed, inSeconds)
		add("engine_intake", s.Intake, perSecond)
		add("engine_unpack", s.Unpack, perSecond)
		add("engine_find", s.Find, inSeconds)
		if s.Ask > 0 {
			add("engine_ask", s.Ask, inSeconds)
		}
		if s.PullPresent > 0 {
			add("engine_pull_present", s.PullPresent, inSeconds)
		}
		if p := s.Pulling; p != nil {
			add("engine_pull_fixed", p.Fixed, inSeconds)
			add("engine_pull_intake", p.Intake, perSecond)
			add("engine_pull_unpack", p.Unpack, perSecond)
		}
		add("engine_pulls", map[bool]float64{true: 1}[s.Pulls], "")
	}
	if s := m.rates.Root; s != nil {
		add("root_mount", s.Mount, inSeconds)
		add("root_start", s.Start, inSeconds)
		add("root_close", s.Close, inSeconds)
	}
}

// text is the record for people, the recommendation last.
func (r *advised) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s in %s\n\nMeasured in %s:\n", cli.Printable(r.Image), cli.Bytes(r.Bytes), count(float64(r.Layers), "layer"), secondsText(r.Seconds))
	b.WriteString(table(func(row func(string, ...any)) {
		for _, s := range r.Samples {
			bytes := ""
			if s.Bytes > 0 {
				bytes = cli.Bytes(s.Bytes)
			}
			row("  %s\t%s\t%s\t%s\t%s", s.Part, s.What, bytes, secondsText(s.Seconds), s.Note)
		}
	}))
	for _, text := range r.Missing {
		fmt.Fprintf(&b, "  not measured: %s\n", cli.Printable(text))
	}
	b.WriteString("\nSo:\n")
	b.WriteString(table(func(row func(string, ...any)) {
		for _, rate := range r.Rates {
			row("  %s\t%s", strings.ReplaceAll(rate.Name, "_", " "), rate.text())
		}
	}))
	b.WriteString("\nAssumed:\n")
	for _, text := range r.Assumed {
		b.WriteString("  " + text + "\n")
	}
	b.WriteString("\n")
	b.WriteString(table(func(row func(string, ...any)) {
		row("WAY\tCOLD\tDELTA\tPRESENT\tMEAN OF JOBS\tONCE\tEACH DAY\tREGISTRY/DAY\tSTORAGE/DAY\tBREAKS EVEN AFTER")
		for _, w := range r.Ways {
			if !w.Possible {
				continue
			}
			breaks := ""
			switch {
			case w.BreakEven < 0:
				breaks = "never"
			case w.BreakEven > 0:
				breaks = count(float64(w.BreakEven), "job")
			}
			row("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", w.Name, secondsText(w.Cold), secondsText(w.Delta), secondsText(w.Present), secondsText(w.Job),
				secondsText(w.Once), secondsText(w.Background), cli.Bytes(w.RegistryBytes), cli.Bytes(w.StorageBytes), breaks)
		}
	}))
	for _, w := range r.Ways {
		if !w.Possible {
			fmt.Fprintf(&b, "%s: not possible: %s\n", w.Name, w.Why)
		}
	}
	b.WriteString("\n" + r.Reason + "\n")
	return b.String()
}

func (r *advisedRate) text() string {
	switch r.Unit {
	case inSeconds:
		return secondsText(r.Value)
	case perSecond:
		return humanize.Bytes(uint64(r.Value)) + "/s"
	}
	return map[bool]string{true: "yes", false: "no"}[r.Value != 0]
}

func secondsText(s float64) string {
	switch {
	case s < 5e-7:
		return "0"
	case s < 0.0995:
		return fmt.Sprintf("%.3g ms", 1000*s)
	case s < 100:
		return fmt.Sprintf("%.3g s", s)
	case s < math.MaxInt64/1e9:
		return (time.Duration(s) * time.Second).String()
	}
	return fmt.Sprintf("%.3g s", s)
}

// plot writes two pictures: what a job waits for, and how the seconds of all jobs grow.
func (r *advised) plot(ways []advise.Way, a *Advisor) error {
	bars := plot.Bars{Title: "What a job waits for: " + r.Image, Unit: "s", Order: []string{"registry", "storage", "engine", "other"}}
	lines := plot.Lines{Title: "What all jobs and stocking take: " + r.Image, X: "jobs", Y: "hours"}
	most, breaksEven := 2*a.Fleet.JobsPerDay, false
	for _, w := range ways {
		if w.Possible && w.BreakEven > 0 {
			breaksEven = true
			most = max(most, min(2*float64(w.BreakEven), 100*a.Fleet.JobsPerDay))
		}
	}
	for _, w := range ways {
		if !w.Possible {
			bars.Rows = append(bars.Rows, plot.Row{Label: w.Name, Note: "not possible: " + w.Why})
			continue
		}
		row := plot.Row{Label: w.Name, Parts: []plot.Part{{Name: "registry", Value: w.Job.Registry}, {Name: "storage", Value: w.Job.Storage}, {Name: "engine", Value: w.Job.Engine}, {Name: "other", Value: w.Job.Other}}}
		row.Parts = slices.DeleteFunc(row.Parts, func(p plot.Part) bool { return p.Value == 0 })
		if w.Name == r.Way {
			row.Note = "recommended"
		}
		bars.Rows = append(bars.Rows, row)
		// What never breaks even would make the others all look alike.
		if w.BreakEven != advise.Never || !breaksEven {
			lines.Series = append(lines.Series, plot.Series{Name: w.Name, Points: []plot.Point{{X: 0, Y: w.Once / 3600}, {X: most, Y: w.Seconds(most, a.Fleet) / 3600}}})
		}
	}
	return cmp.Or(write(a.Plot, bars.SVG()), write(growthFile(a.Plot), lines.SVG()))
}

// growthFile is the name of the second picture.
func growthFile(file string) string {
	ext := filepath.Ext(file)
	return strings.TrimSuffix(file, ext) + "-jobs" + ext
}

func write(path string, content []byte) error {
	if err := atomicfile.WriteFile(path, 0o666, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	}); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}
