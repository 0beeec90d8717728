package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/dockercache/dockercache/internal/progress"
)

// seconds is a flag for a duration, with a unit or as the number of seconds that
// GitHub's action has.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, numberErr := strconv.ParseUint(text, 10, 31); numberErr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d == 0 { // which would be the default
		return errors.New("want a duration such as 5h, or seconds")
	}
	*s = seconds(d)
	return nil
}

// byteCount is a flag for a size with a unit: GB is 1000^3 bytes, GiB 1024^3.
type byteCount int64

func (b *byteCount) String() string { return progress.Size(int64(*b)) }

func (b *byteCount) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return errors.New("want a size such as 500GB or 2TiB")
	}
	*b = byteCount(n)
	return nil
}

// mode is a flag for the permissions of a file, in octal.
type mode fs.FileMode

func (m *mode) String() string { return fmt.Sprintf("%#o", *m) }

func (m *mode) Set(text string) error {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return errors.New("want a mode in octal, such as 0644")
	}
	*m = mode(n)
	return nil
}
