package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// List is a flag that may be given more than once.
type List []string

func (l *List) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *List) Set(text string) error { *l = append(*l, text); return nil }

// CommaList is a [List] that also takes values separated by commas; none may be empty.
type CommaList []string

func (l *CommaList) String() string { return strings.Join(*l, ",") }

// Set adds the values in text.
func (l *CommaList) Set(text string) error {
	for value := range strings.SplitSeq(text, ",") {
		if value = strings.TrimSpace(value); value == "" {
			return errors.New("a value is empty: was a variable not set?")
		}
		*l = append(*l, value)
	}
	return nil
}

// Duration is a flag for a duration that may have days: 30d, 1d12h, 36h.
type Duration time.Duration

func (d *Duration) String() string { return time.Duration(*d).String() }

// Set sets the duration, which must be more than 0.
func (d *Duration) Set(text string) error {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16) // 180 years
	var part time.Duration
	if err == nil && (rest != "" || !found) {
		part, err = time.ParseDuration(rest)
	}
	if total := time.Duration(n)*24*time.Hour + part; err == nil && part >= 0 && total > 0 {
		*d = Duration(total)
		return nil
	}
	return errors.New("want a duration such as 30d or 36h, more than 0")
}

// Seconds is a [Duration] that may also be a number of seconds, as GitHub's action
// for credentials of AWS takes it.
type Seconds Duration

func (s *Seconds) String() string { return time.Duration(*s).String() }

// Set sets the duration, which must be more than 0.
func (s *Seconds) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil && n > 0 {
		*s = Seconds(n * uint64(time.Second))
		return nil
	}
	if (*Duration)(s).Set(text) != nil {
		return errors.New("want a duration such as 5h, or seconds, more than 0")
	}
	return nil
}

// Size is a flag for a number of bytes: GB is 1000^3 bytes, GiB 1024^3.
type Size int64

func (s *Size) String() string { return Bytes(int64(*s)) }

// Set sets the size, which must be more than 0.
func (s *Size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return errors.New("want a size such as 500GB or 500GiB, more than 0")
	}
	*s = Size(n)
	return nil
}

// Mode is a flag for the permissions of a file, in octal.
type Mode fs.FileMode

func (m *Mode) String() string { return fmt.Sprintf("%#o", *m) }

// Set sets the mode, which must not be 0.
func (m *Mode) Set(text string) error {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return errors.New("want a mode in octal, such as 0644")
	}
	*m = Mode(n)
	return nil
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Printable is a name for people: one with a line feed or worse is quoted.
func Printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// Stamp is a time in JSON: RFC 3339 in UTC, to the second; "" for none.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// ErrorText is an error in JSON: "" for none.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
