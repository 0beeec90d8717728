package registryflags

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// limits reads flags.
func limits(t *testing.T, args ...string) (f *Flags, open cache.Options, minRate int64, err error) {
	t.Helper()
	f = &Flags{}
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f.RegisterLimits(set, &open, &minRate)
	if err = set.Parse(args); err == nil {
		err = f.Check()
	}
	return f, open, minRate, err
}

func TestLimits(t *testing.T) {
	_, open, minRate, err := limits(t)
	require.NoError(t, err)
	assert.Zero(t, open, "the defaults are the library's")
	assert.Zero(t, minRate)
	_, open, minRate, err = limits(t, "-connections", "8", "-min-range-rate", "10KiB/s", "-min-rate", "1MB", "-trust", "1d12h")
	require.NoError(t, err)
	assert.Equal(t, cache.Options{Connections: 8, MinRangeRate: 10 << 10, TrustFor: 36 * time.Hour}, open)
	assert.EqualValues(t, 1e6, minRate)
	_, open, minRate, err = limits(t, "-min-range-rate", "0", "-min-rate", "0", "-trust", "0")
	require.NoError(t, err)
	assert.Equal(t, cache.Options{MinRangeRate: -1, TrustFor: -1}, open, "0 is none, and not the default")
	assert.Zero(t, minRate)

	for want, args := range map[string][]string{
		`invalid value "0" for flag -connections: want a number from 1 to 1024`:                {"-connections", "0"},
		`invalid value "1/m" for flag -min-rate: want bytes a second such as 100KiB`:           {"-min-rate", "1/m"},
		`invalid value "-1" for flag -min-range-rate: want bytes a second`:                     {"-min-range-rate", "-1"},
		`invalid value "-1s" for flag -timeout: want a duration such as 30d, 36h or 90s, or 0`: {"-timeout", "-1s"},
		`invalid value "30" for flag -image-timeout: want a duration`:                          {"-image-timeout", "30"},
		`invalid value "0" for flag -first-byte-timeout: want`:                                 {"-first-byte-timeout", "0"},
		`invalid value "-1s" for flag -stall-timeout: want`:                                    {"-stall-timeout", "-1s"},
		`invalid value "never" for flag -trust: want a duration such as 30d, 36h or 90s, or 0`: {"-trust", "never"},
		`-image-timeout 2h0m0s is more than -timeout 1h0m0s, which is for all of the run`:      {"-timeout", "1h", "-image-timeout", "2h"},
		`-first-byte-timeout 10m0s is more than -timeout 1m0s, which is for all of the run`:    {"-timeout", "1m", "-first-byte-timeout", "10m"},
		`-stall-timeout 1m0s is more than -timeout 30s, which is for all of the run`:           {"-timeout", "30s", "-stall-timeout", "1m"},
	} {
		_, _, _, err := limits(t, args...)
		require.ErrorContains(t, err, want)
	}
}

// What ends says which limit it was, and how long that is.
func TestTimeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, err := limits(t, "-timeout", "1h", "-image-timeout", "20m")
		require.NoError(t, err)
		begun := time.Now()
		run, end := f.LimitRun(t.Context())
		defer end()
		image, endImage := f.LimitImage(run)
		defer endImage()
		<-image.Done()
		assert.Equal(t, 20*time.Minute, time.Since(begun))
		require.EqualError(t, context.Cause(image), "the time for an image is over (-image-timeout 20m0s)")
		require.ErrorIs(t, context.Cause(image), ErrImageTime)
		require.NoError(t, run.Err(), "the other images go on")
		<-run.Done()
		assert.Equal(t, time.Hour, time.Since(begun))
		require.EqualError(t, context.Cause(run), "the time for the run is over (-timeout 1h0m0s)")
		image, endImage = f.LimitImage(run)
		defer endImage()
		require.ErrorIs(t, context.Cause(image), ErrRunTime)

		none, _, _, err := limits(t, "-timeout", "0", "-image-timeout", "0s")
		require.NoError(t, err)
		for _, limit := range []func(context.Context) (context.Context, context.CancelFunc){none.LimitRun, none.LimitImage, (&Flags{}).LimitRun, (&Flags{}).LimitImage} {
			ctx, end := limit(t.Context())
			_, limited := ctx.Deadline()
			assert.False(t, limited)
			end()
		}
	})
}

func TestSoFar(t *testing.T) {
	put := &cache.Result{Total: 20 << 30, Downloaded: 1 << 30, Reused: 512 << 20, Resumed: 512 << 20}
	for _, kind := range []error{ErrImageTime, ErrRunTime, cache.ErrTooSlow, registry.ErrUnreachable} {
		err := SoFar(fmt.Errorf("x: %w", kind), put)
		require.EqualError(t, err, "x: "+kind.Error()+"; 2.0 GiB of 20 GiB had come")
		require.ErrorIs(t, err, kind)
		assert.Equal(t, kind, SoFar(kind, &cache.Result{}), "it did not come to that")
	}
	other := errors.New("other")
	assert.Equal(t, other, SoFar(other, put))
	require.NoError(t, SoFar(nil, put))
	put.Downloaded = 30 << 30 // with duplicates
	require.ErrorContains(t, SoFar(ErrRunTime, put), "; 20 GiB of 20 GiB had come")
}

// The limits of an answer reach the client.
func TestClientLimits(t *testing.T) {
	server := registrytest.New(t)
	image, err := random.Image(50_000, 1)
	require.NoError(t, err)
	ref, err := server.Push("team/image:t", image)
	require.NoError(t, err)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	for args, quirks := range map[[4]string]registrytest.Quirks{
		{"-stall-timeout", "50ms", "-first-byte-timeout", "1h"}:     {Stall: true},
		{"-stall-timeout", "50.1ms", "-first-byte-timeout", "50ms"}: {NoAnswer: true},
	} {
		server.SetQuirks(quirks)
		f, _, _, err := limits(t, args[:]...)
		require.NoError(t, err)
		client, err := f.Client(&cli.Output{}, registry.Options{Keychain: authn.NewMultiKeychain()})
		require.NoError(t, err)
		remote, err := client.Resolve(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err)
		body, err := remote.ReadRange(t.Context(), manifest.Layers[0].Digest, 0, manifest.Layers[0].Size)
		if err == nil {
			_, err = io.Copy(io.Discard, body)
			body.Close()
		}
		require.ErrorContains(t, err, "(50")
	}
}
