package artifacts

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// An Archive is a downloaded artifact: an [fs.FS] whose every file was read once
// and found whole, small enough and safe to unpack. It is safe for concurrent
// use.
type Archive struct {
	Artifact Artifact

	fs.FS
	files []string // paths, in the archive's order
}

// NewArchive checks a zip that an artifact consists of. [Client.Download] does
// it; this is for who has the bytes already.
//
// It refuses, with kind [ErrArchive]: damaged or encrypted archives; anything
// but plain files and directories; names that are empty, absolute, not UTF-8 or
// longer than 1000 bytes, or that have a part "..", "." or nothing, a "\" or
// ":", or a character that does not show; and names of which two are the same,
// also if only on file systems that ignore case or composition, or of which one
// is a file and the other's directory. More or larger files than limits allow
// are of kind [ErrLimit]; the bytes that come out are counted, whatever the
// archive declares.
func NewArchive(artifact Artifact, content []byte, limits Limits) (*Archive, error) {
	a := &Archive{Artifact: artifact}
	limits = limits.withDefaults()
	fail := func(kind error, format string, args ...any) (*Archive, error) {
		return nil, &Error{Op: "read artifact", Source: fmt.Sprintf("%.200q", artifact.Name), Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if size := int64(len(content)); size > limits.ArchiveBytes {
		return fail(ErrLimit, "%d bytes, the limit is %d", size, limits.ArchiveBytes)
	}
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil && err != zip.ErrInsecurePath { // which says less than checkPath
		return fail(ErrArchive, "%w", err)
	}
	if len(z.File) > limits.Entries {
		return fail(ErrLimit, "%d entries, the limit is %d", len(z.File), limits.Entries)
	}
	seen := names{}
	var total int64
	for i, f := range z.File {
		entry := fmt.Sprintf("entry %d, %.200q", i+1, f.Name)
		name, isDir, err := checkEntry(f)
		if err != nil {
			return fail(ErrArchive, "%s: %w", entry, err)
		}
		if _, _, err := seen.add(name, isDir, 0); err != nil {
			return fail(ErrArchive, "%s: %w", entry, err)
		}
		if isDir {
			continue
		}
		most := min(limits.FileBytes, limits.TotalBytes-total, max(limits.Ratio*int64(len(content)), ratioFrom)-total)
		n, err := measure(f, most)
		switch total += n; {
		case err != nil:
			return fail(ErrArchive, "%s: %w", entry, err)
		case n > limits.FileBytes:
			return fail(ErrLimit, "%s: more than %d bytes", entry, limits.FileBytes)
		case total > limits.TotalBytes:
			return fail(ErrLimit, "%s: the files have more than %d bytes together", entry, limits.TotalBytes)
		case n > most:
			return fail(ErrLimit, "%s: the files are more than %d times as large as the archive's %d bytes", entry, limits.Ratio, len(content))
		}
		a.files = append(a.files, name)
	}
	a.FS = z
	return a, nil
}

// checkEntry returns the path of an entry and whether it is a directory.
func checkEntry(f *zip.File) (name string, isDir bool, err error) {
	name = f.Name
	if f.NonUTF8 {
		return "", false, errors.New("its name is not UTF-8")
	}
	if isDir = name != "" && name[len(name)-1] == '/'; isDir {
		name = name[:len(name)-1]
	}
	if err := checkPath(name); err != nil {
		return "", false, fmt.Errorf("its name: %w", err)
	}
	const encrypted = 0x1 | 0x40 | 0x2000 // .ZIP File Format Specification, 4.4.4
	switch mode := f.Mode(); {
	case mode.Type()&^fs.ModeDir != 0 || mode.IsDir() != isDir:
		return "", false, fmt.Errorf("it is neither a plain file nor a directory: %v", mode)
	case f.Flags&encrypted != 0:
		return "", false, errors.New("it is encrypted")
	}
	return name, isDir, nil
}

// measure reads a file to its end, which checks its CRC, but not much further
// than most bytes.
func measure(f *zip.File, most int64) (int64, error) {
	r, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, io.LimitReader(r, most+1))
}

// zipOne makes a zip of one file, so that there is one kind of archive.
func zipOne(name string, content []byte) ([]byte, error) {
	return zipAll([]string{name}, map[string][]byte{name: content})
}

// zipAll makes a zip of files by their paths, not compressed: archive/zip is an
// fs.FS already.
func zipAll(paths []string, contents map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, p := range paths {
		w, err := z.CreateHeader(&zip.FileHeader{Name: p, Method: zip.Store})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(contents[p]); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
