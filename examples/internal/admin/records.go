package admin

import "github.com/dockercache/dockercache/examples/internal/report"

// The records are what -json prints, one to a line. The names of their fields are a
// contract: other programs parse them. examples/JSON.md describes them.

// listed is what list prints for a tarball.
type listed struct {
	Name           string `json:"name"`
	Tarball        string `json:"tarball"`   // path
	Digest         string `json:"digest"`    // of the manifest
	Reference      string `json:"reference"` // the name that an engine gives it
	Source         string `json:"source"`    // where it was resolved
	Branch         string `json:"branch"`
	RunID          int64  `json:"run_id"`
	Run            int64  `json:"run"` // as RunID
	RunAttempt     int64  `json:"run_attempt"`
	BytesTotal     int64  `json:"bytes_total"`     // of the file
	Bytes          int64  `json:"bytes"`           // as BytesTotal
	BytesAllocated int64  `json:"bytes_allocated"` // of the disk
	BytesShared    int64  `json:"bytes_shared"`    // of the disk, with other files
	LastUsed       string `json:"last_used"`
	Error          string `json:"error"`    // why it cannot be read
	Advice         string `json:"advice"`   // what to do about the error
	Kind           string `json:"kind"`     // tarball, foreign, unreadable
	Platform       string `json:"platform"` // OS/ARCH[/VARIANT], of the config
}

// The kinds of what has a tarball's name.
const (
	ownKind        = "tarball"
	foreignKind    = "foreign"    // an archive that another program made
	templateKind   = "template"   // of engine-root, for prune
	unreadableKind = "unreadable" // something else that is no tarball of this cache, or a damaged one
)

// verified is what verify prints for a tarball.
type verified struct {
	Name            string   `json:"name"`
	Tarball         string   `json:"tarball"` // path
	Digest          string   `json:"digest"`
	Outcome         string   `json:"outcome"` // intact, damaged, repaired, missing, foreign
	Damaged         []string `json:"damaged"` // digests of layers
	BytesTotal      int64    `json:"bytes_total"`
	Bytes           int64    `json:"bytes"`            // as BytesTotal
	BytesDownloaded int64    `json:"bytes_downloaded"` // by -repair
	Error           string   `json:"error"`            // "" if intact or repaired
	Advice          string   `json:"advice"`           // what to do about the error

	Sources []report.Source `json:"sources"` // what each gave to -repair, the preferred first
}

// pruned is what prune prints for a tarball, a template or a leftover.
type pruned struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`    // tarball, template, foreign, partial, journal, retired, mark, verified, lock, wanted, temporary
	Outcome string `json:"outcome"` // removed, kept
	Action  string `json:"action"`  // as Outcome
	DryRun  bool   `json:"dry_run"`
	Why     string `json:"why"`  // foreign, age, count, bytes; leftover
	Kept    string `json:"kept"` // why it stays all the same: newest, in-use

	BytesAllocated int64  `json:"bytes_allocated"` // of the disk
	Bytes          int64  `json:"bytes"`           // as BytesAllocated
	LastUsed       string `json:"last_used"`       // of a tarball
}

// described is what info prints.
type described struct {
	Tarball    string           `json:"tarball"` // path
	File       string           `json:"file"`    // as Tarball
	Digest     string           `json:"digest"`
	Reference  string           `json:"reference"`
	Source     string           `json:"source"`
	Branch     string           `json:"branch"`
	RunID      int64            `json:"run_id"`
	Run        int64            `json:"run"` // as RunID
	RunAttempt int64            `json:"run_attempt"`
	Platform   string           `json:"platform"` // OS/ARCH[/VARIANT], of the config
	Created    string           `json:"created"`  // of the config
	Config     string           `json:"config"`   // digest
	BytesTotal int64            `json:"bytes_total"`
	Bytes      int64            `json:"bytes"`  // as BytesTotal
	Layers     []describedLayer `json:"layers"` // bottom first, each once
}

// describedLayer is a layer in [described].
type describedLayer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"`
	Offset    int64  `json:"offset"` // in the file
}

// reported is what report prints: of all records, and of those of an image, a host, a day.
type reported struct {
	By      string `json:"by"`   // all, image, host, day
	Name    string `json:"name"` // of the image, the host or the day
	Records int    `json:"records"`
	First   string `json:"first"` // time of the first record
	Last    string `json:"last"`
	Loads   int    `json:"loads"`
	Hits    int    `json:"hits"` // loads that succeeded

	BytesDownloaded int64 `json:"bytes_downloaded"`
	BytesReused     int64 `json:"bytes_reused"`
	BytesResumed    int64 `json:"bytes_resumed"`
	BytesStreamed   int64 `json:"bytes_streamed"`

	Compared          int     `json:"compared"` // loads, with plain pulls
	Unknown           int     `json:"unknown"`  // loads that could not be
	Seconds           float64 `json:"seconds"`  // of the compared
	PullSecondsLeast  float64 `json:"pull_seconds_least"`
	PullSecondsMost   float64 `json:"pull_seconds_most"`
	SavedSecondsLeast float64 `json:"saved_seconds_least"`
	SavedSecondsMost  float64 `json:"saved_seconds_most"`
	RatesOf           string  `json:"rates_of"` // registries, with spaces between

	Ways    []reportedWay    `json:"ways"`
	Origins []reportedOrigin `json:"origins"`
	Slowest []reportedPhase  `json:"slowest"` // phases, the longest in all first
}

type reportedWay struct {
	Kind          string  `json:"kind"`
	Outcome       string  `json:"outcome"`
	Count         int     `json:"count"`
	SecondsMedian float64 `json:"seconds_median"`
	SecondsMean   float64 `json:"seconds_mean"`
}

type reportedOrigin struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

type reportedPhase struct {
	Kind          string  `json:"kind"`
	Phase         string  `json:"phase"`
	Count         int     `json:"count"`
	Seconds       float64 `json:"seconds"` // in all
	SecondsMedian float64 `json:"seconds_median"`
}
