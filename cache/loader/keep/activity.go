package keep

import (
	"fmt"
	"time"

	"github.com/dockercache/dockercache/cache/tarball"
)

// A Step is a part of a Keeper's work that may take long, or never end: a file server or an
// engine may not answer.
type Step string

// The steps.
const (
	Looking  Step = "look"   // at the directory or bucket
	Asking   Step = "ask"    // the engine, whether it has the images
	Loading  Step = "load"   // an image
	Removing Step = "remove" // older versions
)

// An Activity is what a [Keeper] does now.
type Activity struct {
	// Step is empty while it waits for the next look.
	Step Step
	// Image is the name of the tarball that the step is about; "" if it is about all.
	Image string
	// Began is when the step began, and Progress when it was last seen to come further:
	// that the engine took bytes, or reported that it has unpacked some. It is Began if
	// that was never seen, as in all steps but Loading.
	Began, Progress time.Time
	// Stalled reports that Progress is longer ago than [Options].StalledAfter.
	Stalled bool

	last tarball.Progress
}

// stalledAfter is longer than the largest images take to be unpacked by an engine that
// reports nothing meanwhile, and than [loader.Load] waits for another process.
const stalledAfter = 30 * time.Minute

// begin records that a step begins; "" for none.
func (k *Keeper) begin(step Step, image string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	k.status.Activity = Activity{Step: step, Image: image, Began: now, Progress: now}
}

// progress returns a function that records that the step has come further, and calls the
// caller's, if there is one.
func (k *Keeper) progress(callers func(tarball.Progress)) func(tarball.Progress) {
	return func(p tarball.Progress) {
		k.mu.Lock()
		if a := &k.status.Activity; p != a.last {
			a.Progress, a.last = k.now(), p
		}
		k.mu.Unlock()
		if callers != nil {
			callers(p)
		}
	}
}

// isStalled reports whether a step has not come further for too long. The mutex is held.
func (k *Keeper) isStalled() bool {
	a := k.status.Activity
	return a.Step != "" && k.o.StalledAfter > 0 && k.now().Sub(a.Progress) >= k.o.StalledAfter
}

// String returns what is done, for people; "" for nothing.
func (a Activity) String() string {
	what := map[Step]string{Looking: "looking at the tarballs", Asking: "asking the engine", Loading: "loading", Removing: "removing older versions"}[a.Step]
	if what == "" {
		return ""
	}
	if a.Image != "" {
		what += fmt.Sprintf(" %q", a.Image)
	}
	return what + " since " + a.Began.UTC().Format(time.RFC3339)
}
