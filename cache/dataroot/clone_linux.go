package dataroot

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// createNameless creates a file in a directory that no name leads to, so that nothing is left of
// it when it is closed, however the process ends.
func createNameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	// NFS and some others have no such files.
	if f, err = sys.CreateTemp(dir, "clone"+suffix, "tmp", 0o600); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func clones() ([]Clone, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var found []Clone
	for _, m := range all {
		if !m.isOurs() {
			continue
		}
		c := Clone{At: m.at}
		if record, err := readRecordIn(m.at); err == nil {
			c.Template.Record = record
		}
		found = append(found, c)
	}
	return found, nil
}

// readRecordIn reads the record in a data root, of which an engine's containers may have made
// anything.
func readRecordIn(root string) (*Record, error) {
	f, err := os.OpenFile(filepath.Join(root, RecordName), os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotTemplate
	}
	var r Record
	return &r, json.NewDecoder(io.LimitReader(f, mostRecord)).Decode(&r)
}
