package loader

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Advice implements [Adviser].
func (d *docker) Advice(ctx context.Context) (advice []string) {
	about, err := d.about(ctx)
	if err != nil {
		return nil
	}
	if _, err := parseVersion(about.version); err == nil && !about.knownToTakeDeltas() && !d.Pulls(ctx) {
		advice = append(advice, fmt.Sprintf("%v is sent whole images: Docker 20.10 and later, 25 and later with containerd's store, and podman 4.3 and later are sent only the layers that they lack: update the engine", about))
	}
	if about.driver == "vfs" {
		advice = append(advice, fmt.Sprintf("%v copies all files of the layers below for each layer, which takes their time and space again: use the storage driver overlay2 (Docker) or overlay (podman)", about))
	}
	if socket, ok := strings.CutPrefix(d.host.Address, "unix://"); ok && !about.podman && !about.containerd {
		if pid := daemonOf(ctx, socket); pid > 0 && lacksProgram(filepath.Join("/proc", strconv.Itoa(pid)), "unpigz") {
			advice = append(advice, fmt.Sprintf("%v finds no program unpigz on its PATH, with which it unpacks gzip faster (27 to 29 s in place of 30 to 38 s where it was measured): install the package pigz, and restart the engine", about))
		}
	}
	return advice
}

// isDaemon reports whether a process of this machine is Docker's daemon.
func isDaemon(pid int) bool {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	return err == nil && strings.HasPrefix(string(comm), "dockerd")
}

// lacksProgram reports whether a process, by its directory in /proc, is known to find no
// program of this name. Its environment can be read by its own user and by root alone.
func lacksProgram(process, name string) bool {
	environ, err := os.ReadFile(filepath.Join(process, "environ"))
	if err != nil {
		return false
	}
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		path, ok := strings.CutPrefix(variable, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			// Not where a link leads: it may be an absolute one, of another root.
			if _, err := os.Lstat(filepath.Join(process, "root", dir, name)); err == nil || !os.IsNotExist(err) {
				return false
			}
		}
		return true
	}
	return false
}
