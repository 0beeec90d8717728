package artifacts

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"slices"
)

// MergeOptions are options of [Merge]. The zero value of each field works.
type MergeOptions struct {
	// LastWins takes the later of two files that have the same path and
	// different content. Default: that is an error.
	LastWins bool
	// Limits bound what is merged: its Entries and TotalBytes.
	Limits Limits
}

// A Merged is several archives as one directory: an [fs.FS] in memory, safe for
// concurrent use.
type Merged struct {
	fs.FS
	// Files are all files, sorted by path. Directories that hold no file are
	// left out.
	Files []MergedFile
}

// A MergedFile is one file of a [Merged].
type MergedFile struct {
	Path string
	// From is the artifact that it came from; of several with the same content
	// the first.
	From Artifact
	// Over are the artifacts whose file of the same path was different and
	// lost, which happens only with [MergeOptions.LastWins].
	Over []Artifact
}

// Merge makes one directory of several archives, in the order of their names and
// then their IDs, whatever order they are given in.
//
// The same path with the same content in several of them is fine. With
// different content it is an error of kind [ErrConflict] that names both, unless
// the last is to win. Names that are the same only where case or composition
// does not count, and a file where another archive has a directory, are of kind
// [ErrArchive] always. Too much of all is of kind [ErrLimit].
func Merge(archives []*Archive, options *MergeOptions) (*Merged, error) {
	var o MergeOptions
	if options != nil {
		o = *options
	}
	limits := o.Limits.withDefaults()
	archives = slices.SortedStableFunc(slices.Values(archives), func(a, b *Archive) int { return byNameAndID(a.Artifact, b.Artifact) })

	seen := names{}
	files := map[string]*MergedFile{}
	contents := map[string][]byte{}
	var paths []string
	var total int64
	for i, a := range archives {
		fail := func(kind error, format string, args ...any) (*Merged, error) {
			return nil, &Error{Op: "merge artifact", Source: fmt.Sprintf("%.200q", a.Artifact.Name), Kind: kind, Err: fmt.Errorf(format, args...)}
		}
		for _, p := range a.files {
			content, err := fs.ReadFile(a, p)
			if err != nil {
				return fail(ErrArchive, "%w", err)
			}
			if total += int64(len(content)); total > limits.TotalBytes {
				return fail(ErrLimit, "%.200q: the files of all artifacts have more than %d bytes together", p, limits.TotalBytes)
			}
			switch other, again, err := seen.add(p, false, i); {
			case err != nil && !again:
				return fail(ErrArchive, "%w; one of them is from artifact %.200q", err, archives[other.owner].Artifact.Name)
			case !again:
				if paths = append(paths, p); len(paths) > limits.Entries {
					return fail(ErrLimit, "more than %d files in all artifacts together", limits.Entries)
				}
				files[p] = &MergedFile{Path: p, From: a.Artifact}
			case bytes.Equal(contents[p], content):
				continue
			case !o.LastWins:
				return fail(ErrConflict, "%.200q is different in artifact %.200q", p, files[p].From.Name)
			default:
				f := files[p]
				f.Over, f.From = append(f.Over, f.From), a.Artifact
			}
			contents[p] = content
		}
	}
	return newMerged(paths, files, contents)
}

func newMerged(paths []string, files map[string]*MergedFile, contents map[string][]byte) (*Merged, error) {
	slices.Sort(paths)
	m := &Merged{}
	for _, p := range paths {
		m.Files = append(m.Files, *files[p])
	}
	raw, err := zipAll(paths, contents)
	if err != nil {
		return nil, err
	}
	if m.FS, err = zip.NewReader(bytes.NewReader(raw), int64(len(raw))); err != nil {
		return nil, err
	}
	return m, nil
}
