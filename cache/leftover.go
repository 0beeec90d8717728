package cache

import (
	"regexp"
	"sync"
	"time"
)

// A LeftoverKind says what a file beside the tarballs is for. Its text is the
// one of the examples' -json output.
type LeftoverKind string

// The kinds of files that writers leave when they are killed, or leave on purpose
// for a time.
const (
	// PartialLeftover: a tarball that was begun, .<tarball>.<digest>.<unique>.partial.
	PartialLeftover LeftoverKind = "partial"
	// JournalLeftover: what is in such a file, under its name and .journal.
	JournalLeftover LeftoverKind = "journal"
	// RetiredLeftover: a version that was replaced, .<tarball>.<time>.<unique>.retired.
	RetiredLeftover LeftoverKind = "retired"
	// MarkLeftover: when a tarball was last used, .<tarball>.mark.
	MarkLeftover LeftoverKind = "mark"
	// LockLeftover: who writes a tarball, .<tarball>.lock.
	LockLeftover LeftoverKind = "lock"
	// WantedLeftover: who wants that lock, .<tarball>.lock.wanted.
	WantedLeftover LeftoverKind = "wanted"
	// TemporaryLeftover: a file of [WriteFile], .<name>.<unique>.tmp.
	TemporaryLeftover LeftoverKind = "temporary"
)

// A Leftover is a file that [Dir.Sweep] removed, or would remove.
type Leftover struct {
	// Name is the file's, without a path. It may have any character but "/".
	Name string
	Kind LeftoverKind
	// Bytes is how much of the disk it had.
	Bytes int64
	// Age is how long ago it was last written; for a retired version, replaced.
	Age time.Duration
}

// leftoverForms are the exact forms of the names that this package makes. What has
// any other name is somebody else's, and stays. They are compiled when they are needed.
var leftoverForms = sync.OnceValue(func() []leftoverForm {
	return []leftoverForm{
		{PartialLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9a-f]{12}\.[0-9a-f]{16}\.partial$`)},
		{JournalLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9a-f]{12}\.[0-9a-f]{16}\.partial\.journal$`)},
		{RetiredLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9]{1,18}\.[0-9a-f]{16}\.retired$`)},
		{MarkLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.mark$`)},
		{LockLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.lock$`)},
		{WantedLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.lock\.wanted$`)},
		{TemporaryLeftover, regexp.MustCompile(`(?s)^\.(.+)\.[0-9a-f]{16}\.tmp$`)},
	}
})

type leftoverForm struct {
	kind LeftoverKind
	form *regexp.Regexp
}

// leftoverOf returns what kind of file this package gives such a name, and of
// which tarball it is; "" if it gives none.
func leftoverOf(name string) (kind LeftoverKind, tarball string) {
	for _, f := range leftoverForms() {
		m := f.form.FindStringSubmatch(name)
		if m == nil || f.kind != TemporaryLeftover && len(m[1]) > maxTarballName {
			continue
		}
		return f.kind, m[1]
	}
	return "", ""
}

// ageOf returns how long ago a time was. One that is yet to come was just now: a
// clock has jumped, this one or the other, and if it was this one everything
// seems to be from the future. What stays too long costs space; what goes too
// soon, somebody's work.
func ageOf(t, now time.Time) time.Duration { return max(now.Sub(t), 0) }
