// Package scripttest runs the example programs in tests: scripts of testscript, with
// the commands that all need, and programs that a signal interrupts.
package scripttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// Commands are commands of scripts.
type Commands map[string]func(ts *testscript.TestScript, neg bool, args []string)

// Run runs the scripts in testdata/script with these commands, those of [BucketCommands],
// and these of this package:
//
//	exits CODE COMMAND...        the exit code, which testscript does not check
//	holds DIR FILE...            these files and no other; what is recorded beside tarballs
//	                             may be there too, see [Recorded]
//	stock FILE REF LAYER...      what docker-cache would write there
//	damage FILE [LAYER]...       a byte of each of these layers is wrong, by default of
//	                             the last
//	commands NAME...             what the runner of Actions would find in what the last
//	                             program printed
//	quirks SERVER JSON           what a server does wrong from now on
//	stop SERVER                  it is gone
//
// A SERVER is one of the script's values. The condition [mounts] is for root where file
// systems can be mounted and capabilities dropped: by unshare, mount and setpriv.
func Run(t *testing.T, setup func(env *testscript.Env) error, commands Commands) {
	t.Helper()
	all := Commands{"exits": exits, "holds": holds, "stock": stock, "damage": damage, "commands": runnerCommands, "stop": stop}
	maps.Copy(all, BucketCommands())
	maps.Copy(all, commands)
	testscript.Run(t, testscript.Params{
		Dir:       "testdata/script",
		Condition: condition,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			if setup == nil {
				return nil
			}
			return setup(env)
		},
		Cmds: all,
	})
}

func condition(name string) (bool, error) {
	if name != "mounts" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	missing := error(nil)
	for _, tool := range []string{"setpriv", "unshare", "mount"} {
		_, err := exec.LookPath(tool)
		missing = errors.Join(missing, err)
	}
	if os.Geteuid() != 0 {
		missing = errors.Join(missing, errors.New("root"))
	}
	if missing != nil {
		if os.Getenv("CI") == "true" {
			return false, fmt.Errorf("CI=true: missing: %w", missing)
		}
		return false, nil
	}
	return exec.Command("unshare", "-m", "mount", "-t", "tmpfs", "none", os.TempDir()).Run() == nil, nil
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// Recorded reports whether a file is what package cache records beside a tarball: when it
// was last used, and when it was hashed; or the log of what was done.
func Recorded(name string) bool {
	return strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".mark") || strings.HasSuffix(name, ".verified") || strings.HasSuffix(name, ".jsonl"))
}

func holds(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	want := args[1:]
	have := []string{}
	for _, e := range entries {
		if !Recorded(e.Name()) || slices.Contains(want, e.Name()) {
			have = append(have, e.Name())
		}
	}
	if !slices.Equal(have, want) {
		ts.Fatalf("%s holds %q, want %q", args[0], have, want)
	}
}

// Stock writes the tarball of an image of such layers, each of size bytes, as
// docker-cache does. Its directory is made if it is missing.
func Stock(path, ref string, size int, layers ...string) error {
	dir, err := cache.Open(filepath.Dir(path), &cache.Options{DirMode: 0o755})
	if err != nil {
		return err
	}
	return tarballtest.Stock(dir, filepath.Base(path), ref, size, layers...)
}

func stock(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(Stock(ts.MkAbs(args[0]), args[1], 5000, args[2:]...))
}

func damage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	t, err := tarball.Open(path)
	ts.Check(err)
	defer t.Close()
	layers := t.Layout.Layers()
	which := args[1:]
	if len(which) == 0 {
		which = []string{strconv.Itoa(len(layers) - 1)}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	for _, w := range which {
		n, err := strconv.Atoi(w)
		ts.Check(err)
		at, one := layers[n].Offset+layers[n].Length/2, make([]byte, 1)
		_, err = f.ReadAt(one, at)
		ts.Check(err)
		_, err = f.WriteAt([]byte{^one[0]}, at)
		ts.Check(err)
	}
}

func runnerCommands(ts *testscript.TestScript, _ bool, args []string) {
	have := []string{}
	for line := range strings.SplitSeq(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "\n") {
		if c, ok := artifactstest.ParseCommand(line); ok {
			have = append(have, c.Name)
		}
	}
	if !slices.Equal(have, args) {
		ts.Fatalf("the commands are %q, want %q", have, args)
	}
}

func stop(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value(args[0]).(interface{ Close() }).Close()
}

// Quirks returns the command quirks for servers of one kind, which always have those of
// base too.
func Quirks[Server interface{ SetQuirks(Q) }, Q any](base Q) func(ts *testscript.TestScript, neg bool, args []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		q := base
		ts.Check(json.Unmarshal([]byte(args[1]), &q))
		ts.Value(args[0]).(Server).SetQuirks(q)
	}
}

// A Build is an Actions API with build runs, by the names that scripts have for them.
type Build struct {
	API  *artifactstest.Server
	Runs map[string]artifactstest.Run
}

// SetUp gives a script the API, as the server "api", and the IDs of the runs, in
// $RUN_NAME.
func (b *Build) SetUp(env *testscript.Env) {
	env.Values["api"], env.Values["build"] = b.API, b
	env.Vars = append(env.Vars, b.API.Env()...)
	for name, run := range b.Runs {
		env.Setenv("RUN_"+strings.ToUpper(name), fmt.Sprint(run.ID))
	}
}

// BuildCommands are for scripts with a [Build]: they make the script a job of Actions.
//
//	event RUN                    started by the event workflow_run of a run
//	dispatch RUN BRANCH          started by workflow_dispatch for a run
func BuildCommands() Commands {
	begin := func(ts *testscript.TestScript, name string, payload []byte) {
		ts.Check(os.WriteFile(ts.MkAbs("event.json"), payload, 0o644))
		for key, value := range map[string]string{
			"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "example/project", "GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": ts.MkAbs("event.json"),
			"GITHUB_OUTPUT": ts.MkAbs("output"), "GITHUB_STEP_SUMMARY": ts.MkAbs("summary"),
		} {
			ts.Setenv(key, value)
		}
	}
	run := func(ts *testscript.TestScript, name string) artifactstest.Run {
		return ts.Value("build").(*Build).Runs[name]
	}
	return Commands{
		"event": func(ts *testscript.TestScript, _ bool, args []string) {
			begin(ts, "workflow_run", artifactstest.WorkflowRunEvent(run(ts, args[0])))
		},
		"dispatch": func(ts *testscript.TestScript, _ bool, args []string) {
			begin(ts, "workflow_dispatch", artifactstest.DispatchEvent("example/project", args[1], fmt.Sprint(run(ts, args[0]).ID)))
		},
	}
}

// Signals are those that interrupt a program.
func Signals() []syscall.Signal { return []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} }

// Command returns a command that runs a program that testscript.Main has put on PATH,
// for a minute at most: that ends a test that would hang.
func Command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = os.Environ()
	return cmd
}

// Interrupt starts a command, sends it a signal once begun is closed or received from,
// and requires that it ends with the exit code 130. It returns what it printed to
// standard error.
func Interrupt(t *testing.T, cmd *exec.Cmd, signal os.Signal, begun <-chan struct{}) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	<-begun
	require.NoError(t, cmd.Process.Signal(signal))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, 130, exit.ExitCode())
	return stderr.String()
}
