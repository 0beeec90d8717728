package dataroot_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// An engine that does not start, does not answer, or does not stop costs a build, and leaves
// nothing.
func TestBadEngines(t *testing.T) {
	testtool.Need(t, "containerd")
	w := newWorld(t, "xfs")
	one := w.stock("one_main.tar", "registry.example/one:main", "a")
	short, err := dataroot.Open(w.root.Path(), &dataroot.Options{Size: 256 << 20, Limit: 5 * time.Second})
	require.NoError(t, err)
	for text, script := range map[string]string{
		"ended at once: no such flag": "echo no such flag >&2; exit 1",
		// It has a /proc of its own namespace: a shell's own number is 1 there.
		"ended at once: I am 1.":   "read -r pid rest </proc/self/stat; echo I am $pid. >&2; exit 1",
		"does not listen after 5s": "exec sleep 1000",
		"unreachable":              "echo containerd successfully booted; exec sleep 1000",
		// It is the first process of its namespace, to which no other signal comes.
		"does not stop after 5s": `containerd "$@" & wait`,
	} {
		t.Run(text, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "engine")
			require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n[ \"$1\" != --version ] || exec containerd --version\n"+script+"\n"), 0o755))
			_, err := short.Build(context.Background(), "one_main", dataroot.Engine{Kind: dataroot.Containerd, Program: path}, []*tarball.Tarball{one}, nil)
			require.ErrorContains(t, err, text)
			assert.Zero(t, loops(t, w.root.Path(), 0))
			entries, err := os.ReadDir(w.root.Path())
			require.NoError(t, err)
			for _, e := range entries {
				assert.NotRegexp(t, `dataroot$|tmp$`, e.Name())
			}
		})
	}
	_, err = w.root.Build(context.Background(), "one_main", dataroot.Engine{Kind: dataroot.Podman, Program: fakeVersion(t, "podman version 1.2.3")}, []*tarball.Tarball{one}, nil)
	require.ErrorContains(t, err, "ended at once")
	_, err = w.root.Build(context.Background(), "one_main", dataroot.Engine{Kind: "cri-o"}, []*tarball.Tarball{one}, nil)
	require.ErrorContains(t, err, "no kind of engine")
	_, err = w.root.Build(context.Background(), "one_main", dataroot.Engine{Kind: dataroot.Containerd}, nil, nil)
	require.ErrorContains(t, err, "no tarball")
}

// Of two builds at the same time the second finds what the first has made.
func TestTwoBuilders(t *testing.T) {
	testtool.Need(t, "containerd")
	w := newWorld(t, "xfs")
	one := w.stock("one_main.tar", "registry.example/one:main", "a")
	outcomes := make([]dataroot.Outcome, 2)
	var both sync.WaitGroup
	for i := range outcomes {
		both.Go(func() {
			r, err := w.root.Build(context.Background(), "one_main", dataroot.Engine{Kind: dataroot.Containerd}, []*tarball.Tarball{one}, nil)
			if assert.NoError(t, err) {
				outcomes[i] = r.Outcome
			}
		})
	}
	both.Wait()
	assert.ElementsMatch(t, []dataroot.Outcome{dataroot.Built, dataroot.Unchanged}, outcomes)
}
