package keep

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/loader"
)

// Status is what a [Keeper] has done, and how it is.
type Status struct {
	// Looked is when the store was last listed; zero if it never was.
	Looked time.Time
	// Looks counts the looks, LookFailures those that failed, EngineFailures how often the
	// engine could not be used.
	Looks, LookFailures, EngineFailures int
	// StoreError is why the last look failed, EngineError why the engine cannot be used; nil
	// if all is well.
	StoreError, EngineError error
	// Busy is why nothing is loaded now; "" if there is no reason.
	Busy string
	// Removed counts the older versions that were removed, RemoveFailures how often that
	// failed. What is in use counts for neither.
	Removed, RemoveFailures int
	// Images are the tarballs that are watched, in the order of their names.
	Images []Image

	lookFailures, engineFailures int // in a row
	engineRetry                  time.Time
}

// An Image is a tarball that is watched.
type Image struct {
	Name string // of the tarball
	// Reference and Digest are those of the image that was last looked at.
	Reference, Digest string
	// Ready reports that the engine has what the tarball holds now.
	Ready bool
	// Error is why the last load failed, Failures how many failed in a row, and Retry when
	// the next may begin.
	Error    error
	Failures int
	Retry    time.Time
	// Failed counts all loads that failed, Loads all others.
	Failed int
	Loads  map[loader.Outcome]int
	// Seconds is how long all of them took, Streamed how many bytes the engine was sent.
	Seconds  float64
	Streamed int64
	// Loaded is when the last load has ended well, and Delay how long after the publication
	// it had begun.
	Loaded time.Time
	Delay  time.Duration
}

// Status returns how the Keeper is.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	for _, i := range k.images {
		c := i.Image
		c.Loads = maps.Clone(c.Loads)
		s.Images = append(s.Images, c)
	}
	slices.SortFunc(s.Images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// Problems returns what is wrong, for people; none if all is well. An image that is being
// loaded for the first time is no problem, nor is a reason to wait.
func (s Status) Problems() (problems []string) {
	if s.StoreError == nil && s.Looked.IsZero() {
		problems = append(problems, "the tarballs were not listed yet")
	}
	if s.StoreError != nil {
		problems = append(problems, fmt.Sprint("the tarballs cannot be listed: ", s.StoreError))
	}
	if s.EngineError != nil {
		problems = append(problems, fmt.Sprint("the engine cannot be used: ", s.EngineError))
	}
	for _, i := range s.Images {
		if i.Error != nil {
			problems = append(problems, fmt.Sprintf("%q: %v", i.Name, i.Error))
		}
	}
	return problems
}

// ServeHTTP answers GET /healthz: 200, or 503 and a line for each of [Status.Problems]; and
// GET /metrics, in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/). It has no passwords, and
// errors have the paths of files and addresses of servers.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	s := k.Status()
	switch r.URL.Path {
	case "/healthz":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		problems := s.Problems()
		if len(problems) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, strings.Join(problems, "\n"))
			return
		}
		fmt.Fprintln(w, "ok")
	case "/metrics":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		fmt.Fprint(w, s.metrics())
	default:
		http.NotFound(w, r)
	}
}

// prefix begins the names of all metrics.
const prefix = "dockercache_keep_loaded_"

// metrics is the status for Prometheus. The only label that grows with what is watched is the
// tarball's name.
func (s Status) metrics() string {
	var b strings.Builder
	family := func(name, kind, help string) func(labels string, value float64) {
		fmt.Fprintf(&b, "# HELP %s%s %s\n# TYPE %[1]s%[2]s %[4]s\n", prefix, name, help, kind)
		return func(labels string, value float64) {
			fmt.Fprintf(&b, "%s%s%s %s\n", prefix, name, labels, strconv.FormatFloat(value, 'g', -1, 64))
		}
	}
	one := func(name, kind, help string, value float64) { family(name, kind, help)("", value) }
	one("looks_total", "counter", "Looks at the directory or bucket.", float64(s.Looks))
	one("look_failures_total", "counter", "Looks that failed.", float64(s.LookFailures))
	one("last_look_timestamp_seconds", "gauge", "When the last look succeeded; 0 for never.", stamp(s.Looked))
	one("engine_failures_total", "counter", "How often the engine could not be used.", float64(s.EngineFailures))
	one("engine_up", "gauge", "1 if the engine could be used when it was last asked.", number(s.EngineError == nil))
	one("busy", "gauge", "1 while nothing is loaded, since a job runs.", number(s.Busy != ""))
	one("removed_total", "counter", "Older versions that were removed.", float64(s.Removed))
	one("remove_failures_total", "counter", "Failed attempts to remove an older version; one in use is none.", float64(s.RemoveFailures))
	each := func(name, kind, help string, value func(i Image) float64) {
		add := family(name, kind, help)
		for _, i := range s.Images {
			add(label(i.Name), value(i))
		}
	}
	each("image_ready", "gauge", "1 if the engine has what the tarball holds.", func(i Image) float64 { return number(i.Ready) })
	each("image_failures", "gauge", "Loads that failed in a row.", func(i Image) float64 { return float64(i.Failures) })
	each("image_loaded_timestamp_seconds", "gauge", "When the last load succeeded; 0 for never.", func(i Image) float64 { return stamp(i.Loaded) })
	each("image_delay_seconds", "gauge", "Time from the publication to the begin of the last load that succeeded.", func(i Image) float64 { return i.Delay.Seconds() })
	each("load_seconds_total", "counter", "Time of all loads.", func(i Image) float64 { return i.Seconds })
	each("streamed_bytes_total", "counter", "Bytes that the engine was sent.", func(i Image) float64 { return float64(i.Streamed) })
	add := family("loads_total", "counter", "Loads by their outcome.")
	for _, i := range s.Images {
		for _, o := range []loader.Outcome{loader.Present, loader.Loaded, loader.Delta} {
			add(label(i.Name, string(o)), float64(i.Loads[o]))
		}
		add(label(i.Name, "failed"), float64(i.Failed))
	}
	return b.String()
}

// escaper escapes the value of a label.
var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// label returns the labels of an image, and of an outcome.
func label(image string, outcome ...string) string {
	text := `{image="` + escaper.Replace(strings.ToValidUTF8(image, "?")) + `"`
	for _, o := range outcome {
		text += `,outcome="` + o + `"`
	}
	return text + "}"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func stamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
