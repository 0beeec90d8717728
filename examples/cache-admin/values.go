package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// age is a flag for a duration that may have days: 30d, 1d12h, 36h.
type age time.Duration

func (a *age) duration() time.Duration { return time.Duration(*a) }
func (a *age) String() string          { return time.Duration(*a).String() }

func (a *age) Set(text string) error {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16) // 180 years
	var d time.Duration
	if err == nil && (rest != "" || !found) {
		d, err = time.ParseDuration(rest)
	}
	if total := time.Duration(n)*24*time.Hour + d; err == nil && d >= 0 && total > 0 {
		*a = age(total)
		return nil
	}
	return errors.New("want a duration such as 30d or 36h, more than 0")
}

// size is a flag for a number of bytes: 500GB, 500GiB.
type size int64

func (s *size) String() string { return bytes(int64(*s)) }

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return errors.New("want a size such as 500GB or 500GiB, more than 0")
	}
	*s = size(n)
	return nil
}

// bytes is a number of bytes for people.
func bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// printable is a name for people: one with a line feed or worse is quoted.
func printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// stamp is a time in JSON: RFC 3339 in UTC, to the second.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
