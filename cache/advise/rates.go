package advise

import (
	"fmt"
	"math"
)

// Rates are what was measured. What is nil was not: the ways that need it are not possible.
// All rates are in bytes per second, all times in seconds.
type Rates struct {
	Registry *Registry `json:"registry,omitempty"`
	Storage  *Storage  `json:"storage,omitempty"`
	Engine   *Engine   `json:"engine,omitempty"`
	Root     *Root     `json:"root,omitempty"`
	// CPUs is how many processors the machine has. No formula uses it.
	CPUs int `json:"cpus,omitempty"`
}

// A Registry is what one gives of an image.
type Registry struct {
	// FirstByte is the time from a request to the first byte of its answer.
	FirstByte float64 `json:"firstByteSeconds"`
	// Connection is the rate of one connection, All that of many at a time.
	Connection float64 `json:"connectionBytesPerSecond"`
	All        float64 `json:"allBytesPerSecond"`
}

// A Storage is a directory, or a bucket, with tarballs.
type Storage struct {
	// Bucket: it is a bucket.
	Bucket bool `json:"bucket,omitempty"`
	// Shared: all machines use the same one.
	Shared bool `json:"shared,omitempty"`
	// ReadOne is the rate of one reader, ReadMany that of many at a time, together.
	ReadOne  float64 `json:"readOneBytesPerSecond"`
	ReadMany float64 `json:"readManyBytesPerSecond"`
	// Write is the rate at which files are written and flushed.
	Write float64 `json:"writeBytesPerSecond"`
	// Reflink: files can share their bytes.
	Reflink bool `json:"reflink,omitempty"`
	// Lock is how long it takes to create and lock a file, Rename to rename one and flush the
	// directory.
	Lock   float64 `json:"lockSeconds"`
	Rename float64 `json:"renameSeconds"`
	// Look is how long it takes to find and open a tarball of which nothing is in memory. 0: no time.
	Look float64 `json:"lookSeconds,omitempty"`
}

// An Engine is what loads images.
type Engine struct {
	// Fixed is what any load takes, however small the image is.
	Fixed float64 `json:"fixedSeconds"`
	// Intake is the rate at which it takes what it is sent, with nothing else to do.
	Intake float64 `json:"intakeBytesPerSecond"`
	// Unpack is the rate at which it unpacks, in bytes of compressed layers.
	Unpack float64 `json:"unpackBytesPerSecond"`
	// Pulls: load-image makes it pull, so that it unpacks a layer while others come. An archive is
	// taken whole before any of it is unpacked.
	Pulls bool `json:"pulls,omitempty"`
	// Find is how long load-image takes to start and to learn that it has the image.
	Find float64 `json:"findSeconds"`
	// Ask is how long the engine's own client takes to start and to learn the same. 0: as Find.
	Ask float64 `json:"askSeconds,omitempty"`
	// PullPresent is how long a pull of an image takes that it has, without the client's start, from a
	// registry that answers at once. 0: no time.
	PullPresent float64 `json:"pullPresentSeconds,omitempty"`
	// Pulling is what it takes to pull. Nil: the same as to load, as where Pulls is set.
	Pulling *Pulling `json:"pulling,omitempty"`
}

// A Pulling is what an engine takes to pull. Docker's classic store writes what it pulls once, and an
// archive twice.
type Pulling struct {
	// Fixed, Intake and Unpack are as those of [Engine].
	Fixed  float64 `json:"fixedSeconds"`
	Intake float64 `json:"intakeBytesPerSecond"`
	Unpack float64 `json:"unpackBytesPerSecond"`
}

// client returns the seconds of the engine's own client.
func (e *Engine) client() float64 {
	if e.Ask > 0 {
		return e.Ask
	}
	return e.Find
}

func (e *Engine) pulling() Pulling {
	if e.Pulling != nil {
		return *e.Pulling
	}
	return Pulling{e.Fixed, e.Intake, e.Unpack}
}

// A Root is what it takes to give an engine a data root.
type Root struct {
	// Mount is how long it takes to clone a template by reflink, and to mount the clone.
	Mount float64 `json:"mountSeconds"`
	// Start is how long the engine takes to start on it, Close to stop it, to check the file
	// system and to publish it as a template.
	Start float64 `json:"startSeconds"`
	Close float64 `json:"closeSeconds"`
}

// An Image is what jobs need.
type Image struct {
	// Layers are the sizes of the distinct layers as they are served, in bytes, bottom first.
	Layers []int64 `json:"layers"`
	// Unpacked is how many bytes are in them, unpacked. Default: 2.5 times their size.
	Unpacked int64 `json:"unpacked,omitempty"`
}

// defaultRatio is how much larger than its layers an image is that is unpacked: the one of
// BENCHMARKS.md that is made of a machine's own files has 2.6 times.
const defaultRatio = 2.5

// Size returns how many bytes the layers have.
func (i Image) Size() (total int64) {
	for _, l := range i.Layers {
		total += l
	}
	return total
}

func (i Image) unpacked() float64 {
	if i.Unpacked > 0 {
		return float64(i.Unpacked)
	}
	return defaultRatio * float64(i.Size())
}

// A Fleet is who needs the image, and how often.
type Fleet struct {
	// JobsPerDay is how many jobs a day need the image, on all machines.
	JobsPerDay float64 `json:"jobsPerDay"`
	// Machines is how many there are. 0 is one.
	Machines int `json:"machines"`
	// BuildsPerDay is how often a day there is a new build of the image.
	BuildsPerDay float64 `json:"buildsPerDay"`
	// New is the share of the image's bytes that is new in a build, from 0 to 1: see [DefaultNew].
	New float64 `json:"new"`
	// JobsPerEngine is for how many jobs an engine's images live: 1 where each job has an engine
	// of its own that begins with nothing. 0 is without end.
	JobsPerEngine float64 `json:"jobsPerEngine,omitempty"`
}

// DefaultNew is a usual value of [Fleet.New]: that of the measurements in BENCHMARKS.md, an
// image whose last layer, the project's own files, is new. Where a build changes the layer that
// has most of the image, as one with all dependencies, it is nearly 1.
const DefaultNew = 0.05

func (f Fleet) machines() float64 { return float64(max(f.Machines, 1)) }

// Check returns a [*FieldError] for what cannot be predicted with.
func (r Rates) Check() error {
	c := checker{"Rates"}
	if s := r.Storage; s != nil {
		c := checker{"Rates.Storage"}
		if err := first(c.rate("ReadOne", s.ReadOne), c.rate("ReadMany", s.ReadMany), c.rate("Write", s.Write), c.seconds("Lock", s.Lock), c.seconds("Rename", s.Rename), c.seconds("Look", s.Look)); err != nil {
			return err
		}
	}
	if s := r.Registry; s != nil {
		c := checker{"Rates.Registry"}
		if err := first(c.rate("Connection", s.Connection), c.rate("All", s.All), c.seconds("FirstByte", s.FirstByte)); err != nil {
			return err
		}
	}
	if s := r.Engine; s != nil {
		c := checker{"Rates.Engine"}
		if err := first(c.rate("Intake", s.Intake), c.rate("Unpack", s.Unpack), c.seconds("Fixed", s.Fixed), c.seconds("Find", s.Find), c.seconds("Ask", s.Ask), c.seconds("PullPresent", s.PullPresent)); err != nil {
			return err
		}
		if p := s.Pulling; p != nil {
			c := checker{"Rates.Engine.Pulling"}
			if err := first(c.rate("Intake", p.Intake), c.rate("Unpack", p.Unpack), c.seconds("Fixed", p.Fixed)); err != nil {
				return err
			}
		}
	}
	if s := r.Root; s != nil {
		c := checker{"Rates.Root"}
		if err := first(c.seconds("Mount", s.Mount), c.seconds("Start", s.Start), c.seconds("Close", s.Close)); err != nil {
			return err
		}
	}
	if r.CPUs < 0 {
		return c.wrong("CPUs", r.CPUs, "0 or more")
	}
	return nil
}

// Check returns a [*FieldError] for what cannot be predicted with.
func (i Image) Check() error {
	total := int64(0)
	for n, l := range i.Layers {
		if l < 0 || total > math.MaxInt64-l {
			return checker{"Image"}.wrong(fmt.Sprintf("Layers[%d]", n), l, "a size in bytes")
		}
		total += l
	}
	if i.Unpacked < 0 {
		return checker{"Image"}.wrong("Unpacked", i.Unpacked, "0 or more")
	}
	return nil
}

// Check returns a [*FieldError] for what cannot be predicted with.
func (f Fleet) Check() error {
	c := checker{"Fleet"}
	switch {
	case f.Machines < 0:
		return c.wrong("Machines", f.Machines, "0 or more")
	case !(f.New >= 0 && f.New <= 1):
		return c.wrong("New", f.New, "a share from 0 to 1")
	case f.JobsPerEngine != 0 && !(f.JobsPerEngine >= 1 && isFinite(f.JobsPerEngine)):
		return c.wrong("JobsPerEngine", f.JobsPerEngine, "1 or more, or 0 for an engine that keeps its images")
	case !(f.JobsPerDay > 0 && isFinite(f.JobsPerDay)):
		return c.wrong("JobsPerDay", f.JobsPerDay, "a positive, finite number")
	case !(f.BuildsPerDay >= 0 && isFinite(f.BuildsPerDay)):
		return c.wrong("BuildsPerDay", f.BuildsPerDay, "0 or more, and finite")
	}
	return nil
}

// A FieldError says which value cannot be predicted with.
type FieldError struct {
	Field string // such as Fleet.New
	Value any
	Want  string // what it must be
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("advise: %s is %v: it must be %s", e.Field, e.Value, e.Want)
}

// A checker makes errors about the fields of a struct.
type checker struct{ of string }

func (c checker) wrong(field string, got any, want string) error {
	return &FieldError{c.of + "." + field, got, want}
}

func (c checker) rate(field string, v float64) error {
	if v > 0 && isFinite(v) {
		return nil
	}
	return c.wrong(field, v, "a positive, finite number of bytes per second")
}

func (c checker) seconds(field string, v float64) error {
	if v >= 0 && isFinite(v) {
		return nil
	}
	return c.wrong(field, v, "a finite number of seconds, 0 or more")
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func first(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
