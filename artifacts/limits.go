package artifacts

import "fmt"

// Limits bound what is taken from a run. They are there because 200 MiB of
// zeros fit into an archive of 200 KB, and because everything is held in
// memory. The text files of a build are some hundred bytes each.
type Limits struct {
	// Artifacts is how many artifacts a run may have. Default: 1000.
	Artifacts int
	// ArchiveBytes is how large one artifact may be as it is downloaded, in
	// bytes. Default: 32 MiB.
	ArchiveBytes int64
	// Entries is how many files and directories one archive may have, and all
	// that are merged together. Default: 1000.
	Entries int
	// FileBytes is how large one file may be, unpacked. Default: 16 MiB.
	FileBytes int64
	// TotalBytes is how large the files of one archive may be together,
	// unpacked, and those of all archives that are merged. Default: 64 MiB.
	TotalBytes int64
	// Ratio is how many times as large as its archive the files may be, once
	// they are larger than 1 MiB together. Default: 100.
	Ratio int64
}

// ratioFrom is the size below which [Limits.Ratio] does not matter: a small
// file of blanks is no bomb.
const ratioFrom = 1 << 20

// withDefaults returns the limits with every 0 replaced.
func (l Limits) withDefaults() Limits {
	set(&l.Artifacts, 1000)
	set(&l.ArchiveBytes, 32<<20)
	set(&l.Entries, 1000)
	set(&l.FileBytes, 16<<20)
	set(&l.TotalBytes, 64<<20)
	set(&l.Ratio, 100)
	return l
}

func set[T int | int64](limit *T, byDefault T) {
	if *limit <= 0 {
		*limit = byDefault
	}
}

// A limitError says which limit was exceeded. Its kind is [ErrLimit].
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

func overLimit(format string, args ...any) error {
	return &limitError{fmt.Sprintf(format, args...)}
}
