package interop

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"

	"github.com/dockercache/dockercache/cache/loader"
)

// loadsForever makes this program load the tarball that it names, into the engine
// and with the lock directory after it, up to the middle, and stay there.
const loadsForever = "INTEROP_LOADS_FOREVER"

func loadForEver() {
	args := strings.Split(os.Getenv(loadsForever), "\n")
	ctx := context.Background()
	engine, err := loader.Open(ctx, loader.Host{Address: args[1]})
	if err != nil {
		panic(err)
	}
	stocked, err := tarball.Open(args[0])
	if err != nil {
		panic(err)
	}
	_, err = loader.Load(ctx, engine, stocked, &loader.Options{LockDir: args[2], Progress: func(p tarball.Progress) {
		if p.Done >= p.Total/2 {
			fmt.Println("half")
			select {} // the engine gets no more
		}
	}})
	panic(fmt.Sprint("it ended: ", err))
}

// A loader that is killed while the engine pulls from it: the engine goes on without,
// what had the name keeps it, and the next load is right.
func TestPullKilled(t *testing.T) {
	onPullers(t, func(t *testing.T, e engine) {
		s := newStore(t)
		before := s.stock("before_main.tar", "team/image:a-1", "zero")
		requireLoad(t, e, s, before, loader.Loaded)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two", "three")
		program, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), loadsForever+"="+strings.Join([]string{stocked.Name(), e.address, s.options().LockDir}, "\n"))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "half\n", line)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		requireLoad(t, e, s, before, loader.Present)
		requireLoad(t, e, s, stocked, e.afterABreak()...)
	})
}
