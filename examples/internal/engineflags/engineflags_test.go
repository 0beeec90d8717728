package engineflags

import (
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
)

func TestFlags(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("DOCKER_CONTEXT", "")
	t.Setenv("DOCKER_HOST", "unix:///environment")
	for _, c := range []struct {
		args    []string
		address string
		load    loader.Options
		err     bool
	}{
		{nil, "unix:///environment", loader.Options{}, false},
		{[]string{"-host", "unix:///flag", "-lock-dir", "locks", "-no-pull"}, "unix:///flag", loader.Options{LockDir: "locks", NoPull: true}, false},
		{[]string{"-host", "flag"}, "", loader.Options{}, true},
	} {
		var f Flags
		var load loader.Options
		set := flag.NewFlagSet("program", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		f.Register(set, &load)
		require.NoError(t, set.Parse(c.args))
		err := f.Check()
		if c.err {
			require.Error(t, err, c.args)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, c.address, f.Host.Address)
		assert.Equal(t, c.load, load)
	}
}
