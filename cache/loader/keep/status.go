package keep

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/metrics"
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
	// Activity is what is done now.
	Activity Activity
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
	// Phases is how long each phase of all of them took.
	Phases map[timing.Phase]time.Duration
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
	s.Activity.Stalled = k.isStalled()
	for _, i := range k.images {
		c := i.Image
		c.Loads, c.Phases = maps.Clone(c.Loads), maps.Clone(c.Phases)
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
	if a := s.Activity; a.Stalled {
		problems = append(problems, fmt.Sprintf("%s, without progress since %s", a, a.Progress.UTC().Format(time.RFC3339)))
	}
	for _, i := range s.Images {
		if i.Error != nil {
			problems = append(problems, fmt.Sprintf("%q: %v", i.Name, i.Error))
		}
	}
	return problems
}

// ServeHTTP answers GET /healthz: 200 and what is done now, or 503 and a line for each of
// [Status.Problems]; and GET /metrics, in the text format of Prometheus. It has no passwords, and
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
		if activity := s.Activity.String(); activity != "" {
			fmt.Fprintln(w, activity)
		}
	case "/metrics":
		w.Header().Set("Content-Type", metrics.ContentType)
		_, _ = s.metrics().WriteTo(w)
	default:
		http.NotFound(w, r)
	}
}

// metrics is the status for Prometheus. The only label that grows with what is watched is the
// tarball's name.
func (s Status) metrics() *metrics.Set {
	set := new(metrics.Set)
	const prefix = "dockercache_keep_loaded_"
	counter := func(name, help string, value int) { set.Counter(prefix+name, help).Set(float64(value)) }
	gauge := func(name, help string, labels ...string) *metrics.Family {
		return set.Gauge(prefix+name, help, labels...)
	}
	counter("looks_total", "Looks at the directory or bucket.", s.Looks)
	counter("look_failures_total", "Looks that failed.", s.LookFailures)
	gauge("last_look_timestamp_seconds", "When the last look succeeded; 0 for never.").SetTime(s.Looked)
	counter("engine_failures_total", "How often the engine could not be used.", s.EngineFailures)
	gauge("engine_up", "1 if the engine could be used when it was last asked.").SetBool(s.EngineError == nil)
	gauge("busy", "1 while nothing is loaded, since a job runs.").SetBool(s.Busy != "")
	counter("removed_total", "Older versions that were removed.", s.Removed)
	counter("remove_failures_total", "Failed attempts to remove an older version; one in use is none.", s.RemoveFailures)
	gauge("stalled", "1 if what is done now makes no progress for too long.").SetBool(s.Activity.Stalled)
	began := gauge("activity_start_timestamp_seconds", "When what is done now began; none while nothing is done.", "activity", "image")
	progress := gauge("activity_progress_timestamp_seconds", "When what is done now was last seen to come further.", "activity", "image")
	if a := s.Activity; a.Step != "" {
		began.SetTime(a.Began, string(a.Step), a.Image)
		progress.SetTime(a.Progress, string(a.Step), a.Image)
	}
	ready := gauge("image_ready", "1 if the engine has what the tarball holds.", "image")
	failures := gauge("image_failures", "Loads that failed in a row.", "image")
	loaded := gauge("image_loaded_timestamp_seconds", "When the last load succeeded; 0 for never.", "image")
	delay := gauge("image_delay_seconds", "Time from the publication to the begin of the last load that succeeded.", "image")
	seconds := set.Counter(prefix+"load_seconds_total", "Time of all loads.", "image")
	phases := set.Counter(prefix+"load_phase_seconds_total", "Time of each phase of all loads.", "image", "phase")
	streamed := set.Counter(prefix+"streamed_bytes_total", "Bytes that the engine was sent.", "image")
	loads := set.Counter(prefix+"loads_total", "Loads by their outcome.", "image", "outcome")
	for _, i := range s.Images {
		ready.SetBool(i.Ready, i.Name)
		failures.Set(float64(i.Failures), i.Name)
		loaded.SetTime(i.Loaded, i.Name)
		delay.Set(i.Delay.Seconds(), i.Name)
		seconds.Set(i.Seconds, i.Name)
		for p, d := range i.Phases {
			phases.Set(d.Seconds(), i.Name, string(p))
		}
		streamed.Set(float64(i.Streamed), i.Name)
		for _, o := range []loader.Outcome{loader.Present, loader.Loaded, loader.Delta} {
			loads.Set(float64(i.Loads[o]), i.Name, string(o))
		}
		loads.Set(float64(i.Failed), i.Name, "failed")
	}
	return set
}
