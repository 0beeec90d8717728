package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// fileAdvice returns what a person can do about an error of the file system, "" for
// another error.
func fileAdvice(err error) string {
	if dial := (*net.OpError)(nil); errors.As(err, &dial) {
		if dial.Net == "unix" && errors.Is(err, fs.ErrPermission) {
			return fmt.Sprintf("this user%s may not use that socket: run it as another user; for Docker's that is one in the group docker", user())
		}
		return "" // a firewall's, most often
	}
	switch path := pathOf(err); {
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("the file system%s is mounted read-only: mount it for writing, or name another directory", of(path))
	case errors.Is(err, syscall.EPERM):
		return fmt.Sprintf("the system lets this user%s not change that%s: it may be another user's in a sticky directory, or immutable (lsattr), or the file system knows no owners and modes: run it as the owner, or change that", user(), of(path))
	case errors.Is(err, fs.ErrPermission) && errors.As(err, new(syscall.Errno)): // else a server's
		return fmt.Sprintf("this user%s lacks the permission%s: run it as another user, or change owner, group or mode (chown, chgrp, chmod)", user(), of(path))
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Sprintf("make room in the file system%s, or raise this user's quota there", of(path))
	}
	return ""
}

// user names the user as the system knows it, where it does.
func user() string {
	if uid := os.Geteuid(); uid >= 0 {
		return fmt.Sprintf(" (uid %d)", uid)
	}
	return ""
}

// pathOf returns the path that an error is about, or the directory in which that cannot
// be made; "" if it names none.
func pathOf(err error) string {
	var path string
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		path = e.Path
	} else if e := (*os.LinkError)(nil); errors.As(err, &e) {
		path = e.New
	}
	if path == "" {
		return ""
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		path = filepath.Dir(path)
	}
	return path
}

// of is " of PATH", with its mode if that can be read.
func of(path string) string {
	if path == "" {
		return ""
	}
	if info, err := os.Lstat(path); err == nil {
		return fmt.Sprintf(" of %s (%s)", path, info.Mode())
	}
	return " of " + path
}
