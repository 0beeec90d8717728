package registryflags

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/registry"
)

// The causes with which work ends whose time is over.
var (
	ErrImageTime = errors.New("the time for an image is over")
	ErrRunTime   = errors.New("the time for the run is over")
)

// RegisterLimits defines the flags that limit how much is asked at a time, and how slow
// and how long it may be, in a set. What they give is in the options, and minRate.
func (f *Flags) RegisterLimits(set *flag.FlagSet, open *cache.Options, minRate *int64) {
	set.Var((*cli.Count)(&open.Connections), "connections", fmt.Sprintf("how many ranges are read at a time at most, `N`, over all images (default: finds itself, up to %d)", cache.MostConnections))
	set.Var(&f.firstByte, "first-byte-timeout", "how long the first byte of a layer may take, `DURATION`: a registry that is a cache may fetch all of it first (default 5m)")
	set.Var(&f.stall, "stall-timeout", "how long nothing may come in the middle of an answer, `DURATION` (default 15s)")
	set.Var(cli.Rate{N: &open.MinRangeRate, None: -1}, "min-range-rate", "end a connection that gives less than this `SIZE` a second, over a minute, and ask again; 0 is no limit (default 1KiB)")
	set.Var(cli.Rate{N: minRate}, "min-rate", "fail an image of which less than this `SIZE` a second comes, over a minute (default: no limit)")
	set.Var(&f.image, "image-timeout", "fail an image that takes longer than this `DURATION`; what has come serves the next run (default: no limit)")
	set.Var(&f.run, "timeout", "end the run after this `DURATION`; what is done stays, what has come of the rest serves the next run (default: no limit)")
	set.Var((*cli.DurationOrNone)(&open.TrustFor), "trust", "copy layers without hashing them again from tarballs that were hashed less than this `DURATION` ago; 0 hashes every copy (default 7d)")
}

// checkLimits returns an error if one of the limits could never be reached.
func (f *Flags) checkLimits() error {
	for _, l := range []struct {
		name  string
		limit time.Duration
	}{{"image-timeout", time.Duration(f.image)}, {"first-byte-timeout", time.Duration(f.firstByte)}, {"stall-timeout", time.Duration(f.stall)}} {
		if run := time.Duration(f.run); run > 0 && l.limit > run {
			return fmt.Errorf("-%s %v is more than -timeout %v, which is for all of the run", l.name, l.limit, run)
		}
	}
	return nil
}

// LimitRun returns the context of a run: it ends with [ErrRunTime] after -timeout.
func (f *Flags) LimitRun(ctx context.Context) (context.Context, context.CancelFunc) {
	return limit(ctx, f.run, ErrRunTime, "-timeout")
}

// LimitImage returns the context of one image: it ends with [ErrImageTime] after
// -image-timeout.
func (f *Flags) LimitImage(ctx context.Context) (context.Context, context.CancelFunc) {
	return limit(ctx, f.image, ErrImageTime, "-image-timeout")
}

func limit(ctx context.Context, d cli.DurationOrNone, kind error, name string) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, time.Duration(d), fmt.Errorf("%w (%s %v)", kind, name, time.Duration(d)))
}

// SoFar adds to an error of a limit, or of a source that gives nothing any more, how much
// of the tarball had come.
func SoFar(err error, put *cache.Result) error {
	for _, kind := range []error{ErrImageTime, ErrRunTime, cache.ErrTooSlow, registry.ErrUnreachable} {
		if errors.Is(err, kind) && put.Total > 0 {
			come := min(put.Downloaded+put.Reused+put.Resumed, put.Total)
			return fmt.Errorf("%w; %s of %s had come", err, cli.Bytes(come), cli.Bytes(put.Total))
		}
	}
	return err
}
