//go:build unix

package cache

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/internal/wait"
)

// Environment of a child that TestMain turns this test binary into.
const (
	// userVar is who it is: number, umask.
	userVar = "DOCKERCACHE_TEST_USER"
	// stockDirVar is where it stocks an image once.
	stockDirVar = "DOCKERCACHE_TEST_STOCK_DIR"
)

// sharing is the group that all users are in.
const sharing = 64321

// become makes this process that of a user.
func become(user string) error {
	var uid, umask int
	if _, err := fmt.Sscanf(user, "%d %o", &uid, &umask); err != nil {
		return err
	}
	syscall.Umask(umask)
	for _, err := range []error{syscall.Setgroups([]int{sharing}), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if err != nil {
			return err
		}
	}
	return nil
}

func asUser(uid, umask int) string { return fmt.Sprintf("%s=%d %o", userVar, uid, umask) }

// stockOnce stocks the image that is not the first one of a victim, says when it waits,
// and returns the outcome.
func stockOnce(path string) string {
	src, images := killImages(&testing.T{})
	dir, err := Open(path, nil)
	if err != nil {
		return err.Error()
	}
	dir.sleep = func(ctx context.Context, d time.Duration) error {
		if d == lookEvery { // and not between heartbeats
			fmt.Println("waits")
		}
		return wait.Sleep(ctx, d/100)
	}
	result, err := dir.Put(context.Background(), "name_main.tar", images[1], src, &PutOptions{Provenance: tarball.Provenance{}})
	if err != nil {
		return err.Error()
	}
	return string(result.Outcome)
}

// A writer of one user, living or killed, with any umask, shuts no other user out who may
// write to the directory: a living one is waited for, and a dead one is not.
func TestWritersOfSeveralUsers(t *testing.T) {
	testtool.NeedRoot(t)
	if testing.Short() {
		t.Skip("starts many processes")
	}
	const first, second = 64001, 64002
	for _, owner := range []int{first, second} {
		for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky, 0o775 | fs.ModeSetgid, 0o770 | fs.ModeSticky} {
			for _, umask := range []int{0o077, 0o022, 0o002} {
				t.Run(fmt.Sprintf("%v of %d, umask %03o", mode, owner, umask), func(t *testing.T) {
					path := openToAll(t)
					require.NoError(t, os.Chown(path, owner, sharing))
					require.NoError(t, os.Chmod(path, mode))

					// Living: it stands still before it publishes.
					holder, lines := startChild(t, asUser(first, umask), killDirVar+"="+path, killStepVar+"=stop at sync")
					for lines.Scan() && lines.Text() != "stopped" {
					}
					other, said := startChild(t, asUser(second, 0o022), stockDirVar+"="+path)
					require.True(t, said.Scan())
					assert.Equal(t, "waits", said.Text())
					require.NoError(t, holder.Process.Kill())
					_ = holder.Wait()
					last := ""
					for said.Scan() {
						last = said.Text()
					}
					require.NoError(t, other.Wait())
					assert.Equal(t, "stocked", last)

					// Killed.
					require.NoError(t, os.Remove(filepath.Join(path, "name_main.tar")))
					cmd, lines := startChild(t, asUser(first, umask), killDirVar+"="+path, killStepVar+"=sync")
					for lines.Scan() {
					}
					requireKilled(t, cmd)
					require.FileExists(t, filepath.Join(path, lockName))
					other, said = startChild(t, asUser(second, 0o022), stockDirVar+"="+path)
					var all []string
					for said.Scan() {
						all = append(all, said.Text())
					}
					require.NoError(t, other.Wait())
					assert.Equal(t, []string{"stocked"}, all, "it does not wait")
				})
			}
		}
	}
}

// openToAll returns a new directory that all users can reach.
func openToAll(t testing.TB) string {
	t.Helper()
	path := t.TempDir()
	for p := filepath.Dir(path); strings.HasPrefix(p, os.TempDir()) && p != os.TempDir(); p = filepath.Dir(p) {
		require.NoError(t, os.Chmod(p, 0o711))
	}
	return path
}
