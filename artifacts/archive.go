package artifacts

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// An Archive is a downloaded artifact as an [fs.FS]. Each file was read once and
// is complete, small enough and safe to unpack. It is safe for concurrent use.
// Make it by [Client.Download] or [NewArchive].
type Archive struct {
	Artifact Artifact

	fs.FS
	files []string // paths, in the archive's order
}

// NewArchive checks the zip of an artifact. [Client.Download] does so too; this is
// for a caller who has the bytes already.
//
// It refuses, with kind [ErrArchive]: damaged or encrypted archives; anything
// but plain files and directories; names that are empty, absolute, not UTF-8 or
// longer than 1000 bytes, or that have an empty part, a part ".." or ".", a "\" or
// ":", or a character that is not graphic; names outside ASCII that the archive does
// not state to be UTF-8, by its flag or an Info-ZIP Unicode Path; two names that are
// the same, also if only on file systems that ignore case or composition; and a name
// that is both a file and a directory. More or larger files than limits allow are of
// kind [ErrLimit]; the bytes are counted, whatever the archive declares.
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
	if err != nil && err != zip.ErrInsecurePath { // checkPath gives a better reason
		return fail(ErrArchive, "%w", err)
	}
	if len(z.File) > limits.Entries {
		return fail(ErrLimit, "%d entries, the limit is %d", len(z.File), limits.Entries)
	}
	seen := names{}
	var total int64
	for i, f := range z.File {
		entry := fmt.Sprintf("entry %d, %.200q", i+1, f.Name)
		name, isDir, err := checkEntry(f) // which may correct f.Name
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
	if err := decodeName(f); err != nil {
		return "", false, err
	}
	name = f.Name
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

// decodeName makes the name of an entry UTF-8, or returns why it cannot. [zip.File]'s
// NonUTF8 does not serve: it is set for ASCII names with "~" or "\", which are other
// characters in some encodings of Asia, and for comments that are not UTF-8.
func decodeName(f *zip.File) error {
	const isUTF8 = 0x800 // .ZIP File Format Specification, 4.4.4 and appendix D
	unicodeName, has := unicodePath(f)
	ascii := !strings.ContainsFunc(f.Name, func(r rune) bool { return r >= utf8.RuneSelf }) // what is not UTF-8 is U+FFFD here
	switch {
	case ascii || f.Flags&isUTF8 != 0:
		if has && unicodeName != f.Name {
			return fmt.Errorf("it has another name for some readers, %.200q", unicodeName)
		}
	case has:
		f.Name = unicodeName
	case utf8.ValidString(f.Name):
		return errors.New("its name has characters outside ASCII, and the archive does not state that they are UTF-8: pack it again with UTF-8 names")
	default:
		return errors.New("its name is not UTF-8: pack it again with UTF-8 names")
	}
	return nil
}

// unicodePath returns the name in the extra field Info-ZIP Unicode Path of an entry. One
// that is not of the entry's own name is ignored. See .ZIP File Format Specification,
// 4.6.9.
func unicodePath(f *zip.File) (string, bool) {
	const id = 0x7075
	for extra := f.Extra; len(extra) >= 4; {
		size := 4 + int(binary.LittleEndian.Uint16(extra[2:]))
		if size > len(extra) {
			break
		}
		// A version, 1, the CRC of the entry's name, and the name.
		field := extra[4:size]
		if binary.LittleEndian.Uint16(extra) == id && len(field) >= 5 && field[0] == 1 &&
			binary.LittleEndian.Uint32(field[1:]) == crc32.ChecksumIEEE([]byte(f.Name)) {
			return string(field[5:]), true
		}
		extra = extra[size:]
	}
	return "", false
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

// zipOne makes a zip of one file, so that every artifact is a zip.
func zipOne(name string, content []byte) ([]byte, error) {
	return zipAll([]string{name}, map[string][]byte{name: content})
}

// zipAll makes a zip of files by their paths, not compressed: a zip.Reader is an
// fs.FS.
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

// checkPath refuses every path that could leave a directory, or that has another
// meaning on another system, in a terminal or in a list of a shell. archive/zip
// returns all of these: "../x", "/x", "a\x", "", "x\x00".
func checkPath(p string) error {
	switch {
	case p == "":
		return errors.New("it is empty")
	case len(p) > 1000:
		return errors.New("it is longer than 1000 bytes")
	case !utf8.ValidString(p):
		return errors.New("it is not UTF-8")
	case strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return errors.New("it has a control character or an invisible one")
	case strings.ContainsAny(p, `\:`):
		return errors.New(`it has a "\" or ":"`) // separators, drives and streams elsewhere
	case path.IsAbs(p):
		return errors.New("it is absolute")
	case p == "." || !fs.ValidPath(p):
		return errors.New(`it has a part that is "..", "." or empty`)
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return errors.New("a part of it is longer than 255 bytes")
		}
	}
	return nil
}

// sameFile returns a key that is equal for paths that are the same file on some
// file system: those of macOS and Windows ignore case, as a directory of ext4 may,
// and macOS also ignores whether "é" is one character or two.
func sameFile(p string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(p)))
}

// names collects paths and finds those that cannot be in one directory.
type names map[string]node // by sameFile

type node struct {
	path  string
	isDir bool
	owner int // index of the archive
}

// add adds a path and the directories above it. For a path that cannot be in one
// directory with an earlier one it returns that one and the reason. The same file
// again is such a path too, but not a danger: again is true then.
func (n names) add(p string, isDir bool, owner int) (other node, again bool, err error) {
	for dir := path.Dir(p); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if other, _, err := n.addOne(dir, true, owner); err != nil {
			return other, false, err
		}
	}
	return n.addOne(p, isDir, owner)
}

func (n names) addOne(p string, isDir bool, owner int) (other node, again bool, err error) {
	key := sameFile(p)
	other, taken := n[key]
	switch {
	case !taken:
		n[key] = node{p, isDir, owner}
	case other.path != p:
		return other, false, fmt.Errorf("%q and %q are the same name where case or composition does not count", other.path, p)
	case other.isDir != isDir:
		return other, false, fmt.Errorf("%q is a file and a directory", p)
	case !isDir:
		return other, true, fmt.Errorf("%q is there twice", p)
	}
	return other, false, nil
}

// Limits bound what is downloaded and unpacked of a run. They are needed because
// 200 MiB of zeros fit into an archive of 200 KB, and everything is held in memory.
// The text files of a build have some hundred bytes each. The zero value of each
// field, and negative ones, are the default.
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

// withDefaults returns the limits with the defaults filled in.
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
