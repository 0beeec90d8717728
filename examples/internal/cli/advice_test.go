package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Every error of the file system that a person can do something about says what, and
// which file it is, or which directory if the file is not there.
func TestFileAdvice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	assert.NoError(t, os.WriteFile(file, nil, 0o640))
	fails := func(errno syscall.Errno, path string) error {
		return fmt.Errorf("stock: %w", errors.Join(errors.New("x"), &fs.PathError{Op: "open", Path: path, Err: errno}))
	}
	for _, c := range []struct {
		err         error
		what, where string
	}{
		{fails(syscall.EACCES, file), "(chown, chgrp, chmod)", file + " (-rw-r-----)"},
		{fails(syscall.EACCES, filepath.Join(dir, ".x.lock")), "(chown, chgrp, chmod)", dir + " (d"},
		{&os.LinkError{Op: "rename", Old: filepath.Join(dir, ".x.partial"), New: file, Err: syscall.EACCES}, "(chown, chgrp, chmod)", file + " (-rw-r-----)"},
		{fails(syscall.EPERM, file), "sticky directory, or immutable (lsattr)", file},
		{fails(syscall.EROFS, filepath.Join(dir, ".x.lock")), "mounted read-only: mount it for writing", dir},
		{fails(syscall.ENOSPC, file), "make room", file},
		{fails(syscall.EDQUOT, file), "quota", file},
		{syscall.EROFS, "mounted read-only", ""},
		{fmt.Errorf("flush: %w", syscall.EACCES), "chmod", ""},
		{&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}, "group docker", ""},
	} {
		advice := fileAdvice(c.err)
		assert.Contains(t, advice, c.what, "%v", c.err)
		assert.Contains(t, advice, c.where, "%v", c.err)
		out := newOutput("x", os.Stdout, os.Stderr, options{advice: func(error) string { return "" }})
		assert.Equal(t, advice, out.Advice(c.err))
		out = newOutput("x", os.Stdout, os.Stderr, options{advice: func(error) string { return "its own" }})
		assert.Equal(t, "its own", out.Advice(c.err))
	}
	for _, err := range []error{
		nil, errors.New("x"), fails(syscall.ENOENT, file),
		fmt.Errorf("HeadObject s3://bucket/a_main.tar: %w", fs.ErrPermission),                   // a server's
		&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EPERM)}, // a firewall
	} {
		assert.Empty(t, fileAdvice(err), "%v", err)
	}
}
