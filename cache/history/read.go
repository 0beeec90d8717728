package history

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// What is read of a directory, at most. What is older is left out.
const (
	maxFiles     = 256
	maxFileBytes = 2 * DefaultMaxBytes
	maxAllBytes  = 128 << 20
)

// Skipped says what was no record. Each line counts once.
type Skipped struct {
	// Invalid lines are torn, or not what this package writes.
	Invalid int
	// OtherVersion are records of another version of this package.
	OtherVersion int
	// Future are records of more than a day to come: a clock was wrong.
	Future int
	// TooLong are lines of more than 16 KiB.
	TooLong int
	// Files could not be read, or are no regular files, or are beyond what is read of a
	// directory: 256 files, 8 MiB of each and 128 MiB in all, the newest first.
	Files int
}

// Lines returns how many lines were left out.
func (s Skipped) Lines() int { return s.Invalid + s.OtherVersion + s.Future + s.TooLong }

// Read returns the records of all users in a directory from since on, in the order of time. The
// error is that of the directory.
//
// Texts of records are whatever has been written into the files, also by those who mean harm:
// before they are printed control characters must be quoted.
func Read(dir string, since time.Time) ([]Record, Skipped, error) {
	return read(dir, since, time.Now())
}

func read(dir string, since, now time.Time) (records []Record, skipped Skipped, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, skipped, fmt.Errorf("history: %w", err)
	}
	var files []os.FileInfo
	for _, e := range entries {
		if !fileForm.MatchString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // it was replaced meanwhile
		}
		if err != nil || !info.Mode().IsRegular() {
			skipped.Files++
			continue
		}
		files = append(files, info)
	}
	slices.SortStableFunc(files, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	left := int64(maxAllBytes)
	var seen []os.FileInfo
	for i, info := range files {
		if i >= maxFiles || left <= 0 {
			skipped.Files += len(files) - i
			break
		}
		n, err := readFile(filepath.Join(dir, info.Name()), min(left, maxFileBytes), now, &seen, &skipped, func(r Record) {
			if !r.Time.Before(since) {
				records = append(records, r)
			}
		})
		if err != nil {
			skipped.Files++
		}
		left -= n
	}
	slices.SortStableFunc(records, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return records, skipped, nil
}

// readFile reads the last most bytes of a file, and returns how many those were. A file that was
// seen is not read again: it has got the name of the one before meanwhile, or another one.
func readFile(path string, most int64, now time.Time, seen *[]os.FileInfo, skipped *Skipped, yield func(Record)) (int64, error) {
	f, err := sys.OpenToRead(path, sys.NoFollow)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("no regular file")
	}
	if slices.ContainsFunc(*seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
		return 0, nil
	}
	*seen = append(*seen, info)
	from := max(info.Size()-most, 0)
	err = parseAll(io.NewSectionReader(f, from, info.Size()-from), from > 0, now, skipped, yield)
	return info.Size() - from, err
}

// parseAll reads lines. In the middle of a file the first one is not whole. The error is that of
// reading.
func parseAll(r io.Reader, middle bool, now time.Time, skipped *Skipped, yield func(Record)) error {
	lines := bufio.NewReaderSize(r, maxLine+1)
	for {
		line, err := lines.ReadSlice('\n')
		long := false
		for errors.Is(err, bufio.ErrBufferFull) {
			long = true
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch {
		case middle:
		case long:
			skipped.TooLong++
		case len(bytes.TrimSpace(line)) == 0:
		default:
			parseLine(line, now, skipped, yield)
		}
		middle = false
		if err != nil {
			return nil
		}
	}
}

func parseLine(line []byte, now time.Time, skipped *Skipped, yield func(Record)) {
	r, err := parse(line, now)
	switch {
	case errors.Is(err, errVersion):
		skipped.OtherVersion++
	case errors.Is(err, errFuture):
		skipped.Future++
	case err != nil:
		skipped.Invalid++
	default:
		yield(r)
	}
}
