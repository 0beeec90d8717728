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

// Count is a flag for how many of something there are at a time.
type Count int

// maxCount is more than any program has use for: what is above is a slip of the hand.
const maxCount = 1024

func (c *Count) String() string { return strconv.Itoa(int(*c)) }

// Set sets the number, which must be more than 0.
func (c *Count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxCount {
		return fmt.Errorf("want a number from 1 to %d", maxCount)
	}
	*c = Count(n)
	return nil
}

// Duration is a flag for a duration that may have days: 30d, 1d12h, 36h.
type Duration time.Duration

func (d *Duration) String() string { return time.Duration(*d).String() }

// Set sets the duration, which must be more than 0.
func (d *Duration) Set(text string) error {
	total, err := parseDuration(text)
	if err != nil || total <= 0 {
		return errors.New("want a duration such as 30d, 36h or 90s, more than 0")
	}
	*d = Duration(total)
	return nil
}

// DurationOrNone is a [Duration] that may also be 0, for none. It is then -1: in options
// of the packages 0 is their default.
type DurationOrNone time.Duration

func (d *DurationOrNone) String() string { return max(time.Duration(*d), 0).String() }

// Set sets the duration.
func (d *DurationOrNone) Set(text string) error {
	total, err := parseDuration(text)
	if err != nil {
		return errors.New("want a duration such as 30d, 36h or 90s, or 0")
	}
	if *d = DurationOrNone(total); total == 0 {
		*d = -1
	}
	return nil
}

// parseDuration reads a duration that may have days and is not less than 0.
func parseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16) // 180 years
	var part time.Duration
	if err == nil && (rest != "" || !found) {
		part, err = time.ParseDuration(rest)
	}
	if err == nil && part < 0 {
		err = errors.New("less than 0")
	}
	return time.Duration(n)*24*time.Hour + part, err
}

// Since is a flag for a time in the past: a date in UTC, a time in RFC 3339, or how long ago it
// is, as a [Duration].
type Since time.Time

func (s *Since) String() string { return Stamp(time.Time(*s)) }

// Set sets the time.
func (s *Since) Set(text string) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			*s = Since(t)
			return nil
		}
	}
	var ago Duration
	if ago.Set(text) != nil {
		return errors.New("want a date such as 2026-11-26, or how long ago such as 7d or 36h")
	}
	*s = Since(time.Now().Add(-time.Duration(ago)))
	return nil
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

// Rate is a flag for bytes a second, which sets N. It may be 0, for no limit, which sets N
// to None: in options of the packages 0 may be their default.
type Rate struct {
	N    *int64
	None int64
}

func (r Rate) String() string {
	if r.N == nil || *r.N <= 0 {
		return "0"
	}
	return Bytes(*r.N) + "/s"
}

// Set sets the rate.
func (r Rate) Set(text string) error {
	n, err := humanize.ParseBytes(strings.TrimSuffix(text, "/s"))
	if err != nil || n > math.MaxInt64 {
		return errors.New("want bytes a second such as 100KiB or 10MB/s, or 0 for no limit")
	}
	if *r.N = int64(n); n == 0 {
		*r.N = r.None
	}
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
