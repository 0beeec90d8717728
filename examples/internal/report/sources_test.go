package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

var (
	quiet = tarball.SourceUse{
		Name: "ghcr.io/team/image", Bytes: 10 << 30, Requests: 900, FirstByte: 250 * time.Millisecond,
		Busy: 100 * time.Second, Connected: 1425 * time.Second, Connections: 24,
	}
	slow = tarball.SourceUse{
		Name: "ecr.example/team/image", Bytes: 30 << 20, Duplicate: 10 << 20, Requests: 7, Refused: 3, FirstByte: 1234567 * time.Microsecond,
		Busy: 30 * time.Second, Connected: 30 * time.Second, Connections: 1,
	}
	unasked = tarball.SourceUse{Name: "mirror.example/team/image"}
)

func TestSources(t *testing.T) {
	assert.Equal(t, []Source{
		{Repository: "ghcr.io/team/image", Bytes: 10 << 30, BytesPerSecond: (10 << 30) / 100, Requests: 900, FirstByteSeconds: 0.25, Seconds: 100, ConnectionsMean: 14.3, ConnectionsMost: 24},
		{Repository: "ecr.example/team/image", Bytes: 30 << 20, BytesDuplicate: 10 << 20, BytesPerSecond: 1 << 20, Requests: 7, Refused: 3, FirstByteSeconds: 1.235, Seconds: 30, ConnectionsMean: 1, ConnectionsMost: 1},
		{Repository: "mirror.example/team/image"},
	}, Sources([]tarball.SourceUse{quiet, slow, unasked}))

	// Also when it failed; never null.
	r := &Stocked{}
	r.Put(&cache.Result{Sources: []tarball.SourceUse{slow}})
	r.End(errors.New("x"), "")
	assert.Len(t, r.Sources, 1)
	for _, r := range []*Stocked{{}, {}} {
		r.Put(&cache.Result{})
		r.End(nil, "")
		assert.NotNil(t, r.Sources)
	}
	r = &Stocked{}
	r.End(errors.New("x"), "")
	assert.NotNil(t, r.Sources)
}

// verbosity runs a function with an output, as a program does whose flags are args.
func verbosity(t *testing.T, f func(out *cli.Output), args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	p := cli.Program{Name: "program", Setup: func(set *cli.FlagSet) cli.Runner {
		set.VerboseFlag("")
		return runner(f)
	}}
	require.Zero(t, p.Run(t.Context(), args, &out, &err))
	return out.String(), err.String()
}

type runner func(out *cli.Output)

func (runner) Check([]string) error                                  { return nil }
func (f runner) Run(ctx context.Context, out *cli.Output) (code int) { f(out); return cli.OK }

// With -v there is a line for each source.
func TestLogSources(t *testing.T) {
	r := &Stocked{}
	r.Put(&cache.Result{Total: 1, Path: "dir/x_main.tar", Sources: []tarball.SourceUse{quiet, slow, {Bytes: 5}}})
	_, stderr := verbosity(t, r.Log)
	assert.Empty(t, stderr)
	_, stderr = verbosity(t, r.Log, "-v")
	assert.Regexp(t, `^time=\S+ level=INFO msg="read from a source" tarball=x_main.tar source=ghcr.io/team/image bytes="10 GiB" rate="102 MiB/s" seconds=100 first_byte=0.25s requests=900 refused=0 duplicate="0 B" connections=14.3 most=24
time=\S+ level=INFO msg="read from a source" tarball=x_main.tar source=ecr.example/team/image bytes="30 MiB" rate="1.0 MiB/s" seconds=30 first_byte=1.235s requests=7 refused=3 duplicate="10 MiB" connections=1 most=1
time=\S+ level=INFO msg="read from a source" tarball=x_main.tar source=\? bytes="5 B" .*
$`, stderr)
}

// The summary has what is worth a look: several sources, refusals, bytes that came twice.
func TestSummaryOfSources(t *testing.T) {
	refused, twice := quiet, quiet
	refused.Refused, twice.Duplicate = 1, 1
	other := slow
	other.Refused, other.Duplicate = 0, 0
	for i, c := range []struct {
		sources []tarball.SourceUse
		shown   bool
	}{
		{nil, false},
		{[]tarball.SourceUse{quiet}, false},
		{[]tarball.SourceUse{unasked, quiet}, false},
		{[]tarball.SourceUse{quiet, other}, true},
		{[]tarball.SourceUse{refused}, true},
		{[]tarball.SourceUse{twice, unasked}, true},
	} {
		for _, args := range [][]string{{}, {"-v"}} {
			r := &Stocked{Image: "x:t"}
			r.Put(&cache.Result{Outcome: cache.Stocked, Total: 1, Path: "x.tar", Sources: c.sources})
			r.End(nil, "")
			file := filepath.Join(t.TempDir(), "summary")
			verbosity(t, func(out *cli.Output) { Summarize(out, []*Stocked{r}, file) }, args...)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if c.shown || len(args) > 0 && len(c.sources) > 0 {
				assert.Contains(t, string(text), "| image | read from |", i)
				assert.Contains(t, string(text), "| x&#58;t | "+c.sources[0].Name+" |", i)
				continue
			}
			assert.NotContains(t, string(text), "read from", i)
		}
	}
}

func TestLate(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	end(fmt.Errorf("the time is over"))
	done, late, failed := &Stocked{Image: "a:t"}, &Stocked{Image: "b:t", Late: true}, &Stocked{Image: "c:t", Platform: "linux/arm64", OneOfSeveral: true, Late: true}
	assert.Equal(t, `the time is over: 2 of 3 images were not done: "b:t", "c:t" for linux/arm64`, Late(ctx, []*Stocked{done, late, failed}))
	assert.Empty(t, Late(ctx, []*Stocked{done}))
}
