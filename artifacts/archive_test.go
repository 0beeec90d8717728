package artifacts_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// zipOf makes a zip of entries in order, names as they are, with content "x".
func zipOf(t testing.TB, names ...string) []byte {
	t.Helper()
	return zipWith(t, func(z *zip.Writer) {
		for _, name := range names {
			add(t, z, &zip.FileHeader{Name: name}, "x")
		}
	})
}

func zipWith(t testing.TB, fill func(z *zip.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	fill(z)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func add(t testing.TB, z *zip.Writer, h *zip.FileHeader, content string) {
	t.Helper()
	w, err := z.CreateHeader(h)
	require.NoError(t, err)
	if !strings.HasSuffix(h.Name, "/") {
		_, err = w.Write([]byte(content))
		require.NoError(t, err)
	}
}

// withMode is a zip of one entry of a mode.
func withMode(t testing.TB, name string, mode fs.FileMode) []byte {
	return zipWith(t, func(z *zip.Writer) {
		h := &zip.FileHeader{Name: name}
		h.SetMode(mode)
		add(t, z, h, "/etc/passwd")
	})
}

// patched changes bytes of a good zip's central directory, found by signature.
func patched(t testing.TB, offset int, value ...byte) []byte {
	raw := artifactstest.Zip(map[string]string{"a.txt": strings.Repeat("x", 100)})
	at := bytes.Index(raw, []byte("PK\x01\x02"))
	require.Positive(t, at)
	copy(raw[at+offset:], value)
	return raw
}

// overlapping is a zip of n files that are all made of the same packed bytes.
func overlapping(t testing.TB, n int, content string) []byte {
	raw := zipWith(t, func(z *zip.Writer) { add(t, z, &zip.FileHeader{Name: "a", Method: zip.Deflate}, content) })
	directory, end := bytes.Index(raw, []byte("PK\x01\x02")), bytes.LastIndex(raw, []byte("PK\x05\x06"))
	require.Positive(t, directory)
	entry, tail := raw[directory:end], bytes.Clone(raw[end:])
	raw = bytes.Clone(raw[:directory])
	for i := range n {
		copied := bytes.Clone(entry)
		copied[46] = byte('a' + i) // the name follows 46 bytes
		raw = append(raw, copied...)
	}
	binary.LittleEndian.PutUint16(tail[8:], uint16(n))
	binary.LittleEndian.PutUint16(tail[10:], uint16(n))
	binary.LittleEndian.PutUint32(tail[12:], uint32(n*len(entry)))
	return append(raw, tail...)
}

// A name stands in a zip twice. Only the one that was checked counts.
func TestArchiveOfTwoNames(t *testing.T) {
	raw := zipOf(t, "good.txt")
	copy(raw[30:], "../a.txt") // the name of the local header
	a, err := artifacts.NewArchive(artifacts.Artifact{}, raw, artifacts.Limits{})
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(a, "good.txt"))
	m, err := artifacts.Merge([]*artifacts.Archive{a}, nil)
	require.NoError(t, err)
	require.Len(t, m.Files, 1)
	assert.Equal(t, "good.txt", m.Files[0].Path)
}

func TestArchive(t *testing.T) {
	raw := zipWith(t, func(z *zip.Writer) {
		add(t, z, &zip.FileHeader{Name: "dir/"}, "")
		add(t, z, &zip.FileHeader{Name: "dir/é ü.txt", Method: zip.Deflate}, "text")
		add(t, z, &zip.FileHeader{Name: "..name"}, "")
		add(t, z, &zip.FileHeader{Name: "other/x"}, "y")
	})
	a, err := artifacts.NewArchive(artifacts.Artifact{Name: "build"}, raw, artifacts.Limits{})
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(a, "dir/é ü.txt", "..name", "other/x"))

	empty, err := artifacts.NewArchive(artifacts.Artifact{}, zipOf(t), artifacts.Limits{})
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(empty))
}

// named is a zip of one entry, whose name, flags and extra field are as they are given.
func named(t testing.TB, name string, flags uint16, extra ...byte) []byte {
	return zipWith(t, func(z *zip.Writer) {
		w, err := z.CreateRaw(&zip.FileHeader{Name: name, Flags: flags, Extra: extra, CRC32: crc32.ChecksumIEEE([]byte("x")), CompressedSize64: 1, UncompressedSize64: 1})
		require.NoError(t, err)
		_, err = w.Write([]byte("x"))
		require.NoError(t, err)
	})
}

// unicodePath is Info-ZIP's extra field for an entry of a name.
func unicodePath(name, path string) []byte {
	extra := binary.LittleEndian.AppendUint16([]byte{0x75, 0x70}, uint16(5+len(path)))
	return append(binary.LittleEndian.AppendUint32(append(extra, 1), crc32.ChecksumIEEE([]byte(name))), path...)
}

// archive/zip takes some names for another encoding than UTF-8, and so does a comment.
func TestArchiveTakesNames(t *testing.T) {
	other := []byte{1, 2, 1, 0, 9} // an extra field of one byte
	for want, raw := range map[string][]byte{
		"pkg_1.0~rc1_amd64.buildinfo": named(t, "pkg_1.0~rc1_amd64.buildinfo", 0),
		"~":                           named(t, "~", 0),
		"~a/~/b~":                     named(t, "~a/~/b~", 0),
		"a~b":                         named(t, "a~b", 0x800),
		"é~.txt":                      named(t, "é~.txt", 0x800),
		"ü.txt":                       named(t, "ü.txt", 0x800, unicodePath("ü.txt", "ü.txt")...),
		"plain":                       named(t, "plain", 0, unicodePath("plain", "plain")...),
		"café~":                       named(t, "caf\x82~", 0, append(other, unicodePath("caf\x82~", "café~")...)...),
		"ソフト":                         named(t, "\x83\x5c\x83\x74\x83\x67", 0, unicodePath("\x83\x5c\x83\x74\x83\x67", "ソフト")...),
		"ascii.txt":                   named(t, "ascii.txt", 0, unicodePath("former name", "gone")...),
		"commented": zipWith(t, func(z *zip.Writer) {
			add(t, z, &zip.FileHeader{Name: "commented", Comment: "caf\x82", NonUTF8: true}, "x")
		}),
	} {
		a, err := artifacts.NewArchive(artifacts.Artifact{Name: "build"}, raw, artifacts.Limits{})
		require.NoError(t, err, want)
		m, err := artifacts.Merge([]*artifacts.Archive{a}, nil)
		require.NoError(t, err, want)
		require.Len(t, m.Files, 1)
		assert.Equal(t, want, m.Files[0].Path)
		content, err := fs.ReadFile(a, want)
		require.NoError(t, err)
		assert.Equal(t, "x", string(content[:1]))
	}
}

func TestHostileArchives(t *testing.T) {
	good := artifactstest.Zip(map[string]string{"a.txt": strings.Repeat("random?", 50)})
	for name, c := range map[string]struct {
		raw  []byte
		says string
	}{
		"parent":                {zipOf(t, "../evil"), `entry 1, "../evil": its name: it has a part that is ".."`},
		"parent inside":         {zipOf(t, "a/../../evil"), `".."`},
		"parent at the end":     {zipOf(t, "a/.."), `".."`},
		"a second entry":        {zipOf(t, "fine", "../evil"), "entry 2"},
		"absolute":              {zipOf(t, "/etc/passwd"), "absolute"},
		"two slashes":           {zipOf(t, "//etc/passwd"), "absolute"},
		"backslash":             {zipOf(t, `..\evil`), `has a "\"`},
		"drive":                 {zipOf(t, `C:/evil`), `has a "\" or ":"`},
		"stream":                {zipOf(t, `a.txt:evil`), `has a "\" or ":"`},
		"NUL":                   {zipOf(t, "a\x00.txt"), "control character"},
		"newline":               {zipOf(t, "a\n::error::x"), "control character"},
		"escape":                {zipOf(t, "a\x1b[2J"), "control character"},
		"right to left":         {zipOf(t, "a\u202etxt.exe"), "or an invisible one"},
		"zero width":            {zipOf(t, "a\u200b.txt"), "or an invisible one"},
		"empty":                 {zipOf(t, ""), "it is empty"},
		"only a slash":          {zipOf(t, "/"), "it is empty"},
		"dot":                   {zipOf(t, "."), `"."`},
		"dot inside":            {zipOf(t, "./a"), `"."`},
		"double slash":          {zipOf(t, "a//b"), "empty"},
		"not UTF-8":             {zipOf(t, "a\xff"), "not UTF-8"},
		"of no known encoding":  {named(t, "é", 0), "outside ASCII, and the archive does not state that they are UTF-8"},
		"CP437":                 {named(t, "caf\x82", 0), "its name is not UTF-8"},
		"marked, but not UTF-8": {named(t, "caf\x82", 0x800), "its name: it is not UTF-8"},
		"Shift-JIS":             {named(t, "\x83\x5c\x83\x74\x83\x67", 0), "its name is not UTF-8"}, // one byte is a "\"
		"backslash, not marked": {named(t, `..\evil`, 0), `has a "\"`},
		"two names":             {named(t, "good.txt", 0, unicodePath("good.txt", "../evil")...), `it has another name for some readers, "../evil"`},
		"two names, marked":     {named(t, "gut é", 0x800, unicodePath("gut é", "böse")...), `it has another name for some readers, "böse"`},
		"bad Unicode path":      {named(t, "caf\x82", 0, unicodePath("caf\x82", "../café")...), `its name: it has a part that is ".."`},
		"Unicode path not UTF8": {named(t, "caf\x82", 0, unicodePath("caf\x82", "caf\x82")...), "its name: it is not UTF-8"},
		"path of another name":  {named(t, "caf\x82", 0, unicodePath("other", "café")...), "its name is not UTF-8"},
		"cut Unicode path":      {named(t, "caf\x82", 0, unicodePath("caf\x82", "café")[:12]...), "its name is not UTF-8"},
		"long":                  {zipOf(t, strings.Repeat("a/", 600)+"b"), "longer than 1000"},
		"long part":             {zipOf(t, strings.Repeat("a", 256)), "longer than 255"},
		"twice":                 {zipOf(t, "a.txt", "a.txt"), "there twice"},
		"case":                  {zipOf(t, "a.txt", "A.TXT"), "the same name where case"},
		"case of a directory":   {zipOf(t, "dir/a", "DIR/b"), "the same name where case"},
		"full case folding":     {zipOf(t, "straße", "STRASSE"), "the same name where case"},
		"composition":           {zipOf(t, "caf\u00e9", "cafe\u0301"), "the same name where case or composition"},
		"file and directory":    {zipOf(t, "a", "a/b"), "a file and a directory"},
		"directory and file":    {zipOf(t, "a/b", "a"), "a file and a directory"},
		"explicit directory":    {zipOf(t, "a/", "a"), "a file and a directory"},
		"symbolic link":         {withMode(t, "a", fs.ModeSymlink|0o777), "neither a plain file nor a directory"},
		"link as a directory":   {withMode(t, "a/", fs.ModeSymlink|0o777), "neither a plain file nor a directory"},
		"device":                {withMode(t, "a", fs.ModeDevice|0o666), "neither a plain file"},
		"character device":      {withMode(t, "a", fs.ModeDevice|fs.ModeCharDevice|0o666), "neither a plain file"},
		"pipe":                  {withMode(t, "a", fs.ModeNamedPipe|0o666), "neither a plain file"},
		"socket":                {withMode(t, "a", fs.ModeSocket|0o666), "neither a plain file"},
		"directory as a file":   {withMode(t, "a", fs.ModeDir|0o777), "neither a plain file"},
		"encrypted":             {patched(t, 8, 0x09), "encrypted"},
		"strongly encrypted":    {patched(t, 8, 0x48), "encrypted"},
		"encrypted directory":   {patched(t, 8, 0x08, 0x20), "encrypted"},
		"unknown method":        {patched(t, 10, 99), "unsupported compression"},
		"wrong CRC":             {patched(t, 16, 1, 2, 3, 4), "checksum"},
		"declares less":         {patched(t, 24, 5, 0, 0, 0), "entry 1"},
		"declares more":         {patched(t, 24, 200, 0, 0, 0), "entry 1"},
		"packed size too large": {patched(t, 20, 0xff, 0xff, 0xff, 0), "entry 1"},
		"truncated":             {good[:len(good)-10], "zip"},
		"without its beginning": {good[20:], "entry 1"},
		"empty file":            {nil, "zip"},
		"no zip":                {[]byte("<?xml version=\"1.0\"?><Error/>"), "not a valid zip file"},
		"half":                  {good[:len(good)/2], "zip"},
	} {
		a, err := artifacts.NewArchive(artifacts.Artifact{Name: "build"}, c.raw, artifacts.Limits{})
		require.ErrorIs(t, err, artifacts.ErrArchive, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.ErrorContains(t, err, `read artifact "build"`)
		assert.NotContains(t, err.Error(), "\n")
		assert.NotContains(t, err.Error(), "\x1b")
		assert.Nil(t, a, name)
	}
}

func TestArchiveLimits(t *testing.T) {
	zeros := func(sizes ...int) []byte {
		return zipWith(t, func(z *zip.Writer) {
			for i, n := range sizes {
				add(t, z, &zip.FileHeader{Name: string(rune('a' + i)), Method: zip.Deflate}, strings.Repeat("\x00", n))
			}
		})
	}
	for name, c := range map[string]struct {
		raw    []byte
		limits artifacts.Limits
		says   string
	}{
		"a bomb":       {zeros(20 << 20), artifacts.Limits{Ratio: 2000}, "more than 16777216 bytes"},
		"many bombs":   {zeros(15<<20, 15<<20, 15<<20, 15<<20, 15<<20), artifacts.Limits{Ratio: 2000}, "more than 67108864 bytes together"},
		"ratio":        {zeros(10 << 20), artifacts.Limits{}, "more than 100 times as large"},
		"ratio of all": {zeros(1<<20, 1<<20), artifacts.Limits{}, "more than 100 times as large"},
		"overlapping":  {overlapping(t, 26, strings.Repeat("\x00", 1<<20)), artifacts.Limits{}, "more than 100 times as large"},
		"file":         {zeros(11), artifacts.Limits{FileBytes: 10}, "more than 10 bytes"},
		"all files":    {zeros(6, 5), artifacts.Limits{TotalBytes: 10}, "more than 10 bytes together"},
		"entries":      {zipOf(t, "a", "b", "c"), artifacts.Limits{Entries: 2}, "3 entries, the limit is 2"},
		"archive":      {make([]byte, 101), artifacts.Limits{ArchiveBytes: 100}, "101 bytes, the limit is 100"},
		"many by default": {zipWith(t, func(z *zip.Writer) {
			for i := range 1001 {
				add(t, z, &zip.FileHeader{Name: strings.Repeat("a", i/100+1) + string(rune('a'+i%100))}, "")
			}
		}), artifacts.Limits{}, "1001 entries"},
	} {
		a, err := artifacts.NewArchive(artifacts.Artifact{Name: "build"}, c.raw, c.limits)
		require.ErrorIs(t, err, artifacts.ErrLimit, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.Nil(t, a)
	}
	for _, c := range []struct {
		raw    []byte
		limits artifacts.Limits
	}{
		{zeros(10, 10), artifacts.Limits{FileBytes: 10, TotalBytes: 20, Entries: 2}}, // as much as allowed
		{zeros(1 << 20), artifacts.Limits{}},                                         // too small for a bomb
		{zeros(10 << 20), artifacts.Limits{Ratio: 1100}},
	} {
		_, err := artifacts.NewArchive(artifacts.Artifact{}, c.raw, c.limits)
		require.NoError(t, err)
	}
}

// Whatever comes in: no panic, and what is accepted is a proper file system of
// proper names within the limits, that merges.
// endless is a method of compression whose files never end; unpacked counts
// their bytes.
const endless = 250

var unpacked atomic.Int64

func init() {
	zip.RegisterDecompressor(endless, func(io.Reader) io.ReadCloser { return io.NopCloser(zeros{}) })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	unpacked.Add(int64(len(p)))
	return len(p), nil
}

// A file that is too large is not unpacked to its end.
func TestArchiveStopsAtTheLimit(t *testing.T) {
	raw := patched(t, 10, endless)
	copy(raw[bytes.Index(raw, []byte("PK\x01\x02"))+24:], "\xfe\xff\xff\xff") // declares almost 4 GiB
	unpacked.Store(0)
	_, err := artifacts.NewArchive(artifacts.Artifact{}, raw, artifacts.Limits{})
	require.ErrorIs(t, err, artifacts.ErrLimit)
	assert.Positive(t, unpacked.Load())
	assert.LessOrEqual(t, unpacked.Load(), int64(1<<20+1<<16), "1 MiB is allowed, and what is read ahead")
}

func FuzzArchive(f *testing.F) {
	f.Add(artifactstest.Zip(map[string]string{"a.txt": "a=b\n", "d/b": ""}))
	f.Add(zipOf(f, "../x"))
	f.Add(zipOf(f, "a", "A"))
	f.Add(zipOf(f, "a/", "a/b"))
	f.Add(withMode(f, "a", fs.ModeSymlink))
	f.Add(patched(f, 8, 9))
	limits := artifacts.Limits{TotalBytes: 1 << 16, FileBytes: 1 << 15, Entries: 20}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := artifacts.NewArchive(artifacts.Artifact{Name: "x"}, raw, limits)
		if err != nil {
			return
		}
		m, err := artifacts.Merge([]*artifacts.Archive{a, a}, &artifacts.MergeOptions{Limits: artifacts.Limits{TotalBytes: 1 << 17}})
		require.NoError(t, err)
		var total int64
		var names []string
		for _, f := range m.Files {
			require.True(t, fs.ValidPath(f.Path))
			require.NotContains(t, f.Path, `\`)
			content, err := fs.ReadFile(m, f.Path)
			require.NoError(t, err)
			total += int64(len(content))
			names = append(names, f.Path)
		}
		require.LessOrEqual(t, total, limits.TotalBytes)
		require.LessOrEqual(t, len(names), limits.Entries)
		require.NoError(t, fstest.TestFS(m, names...))
	})
}
