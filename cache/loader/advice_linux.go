package loader

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// daemonOf returns the process number of Docker's daemon that listens on a socket, 0 if it
// is not known.
func daemonOf(ctx context.Context, socket string) int {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid) // 0 if it is in another namespace
		}
	})
	if isDaemon(pid) {
		return pid
	}
	// systemd made the socket, and handed it over: then the daemon is the one of the system.
	if socket == "/var/run/docker.sock" || socket == "/run/docker.sock" {
		text, _ := os.ReadFile("/run/docker.pid")
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && isDaemon(pid) {
			return pid
		}
	}
	return 0
}
