package dataroot

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// templateFile is the smallest file that looks like a template.
func templateFile(t *testing.T, change func(r *Record)) []byte {
	t.Helper()
	r := Record{Engine: EngineRecord{Docker, "1.2.3", "overlay2"}, Made: time.Unix(1, 0).UTC(), OS: runtime.GOOS, Architecture: runtime.GOARCH, FileSystem: fileSystem, Size: blockSize}
	if change != nil {
		change(&r)
	}
	fs := make([]byte, r.Size)
	fs[ext4MagicAt], fs[ext4MagicAt+1] = 0x53, 0xef
	end, err := r.encode()
	require.NoError(t, err)
	return append(fs, end...)
}

func TestRecord(t *testing.T) {
	file := templateFile(t, nil)
	r, err := readRecord(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	assert.Equal(t, "1.2.3", r.Engine.Version)
	assert.EqualValues(t, blockSize, r.Size)
}

// Whatever a file has, reading its record returns an error, and reads no more than a record.
func TestRecordOfAnything(t *testing.T) {
	good := templateFile(t, nil)
	changed := func(change func(p []byte) []byte) []byte { return change(slices.Clone(good)) }
	footer := len(good) - footerLength
	for name, file := range map[string][]byte{
		"empty":            nil,
		"short":            []byte(recordMagic),
		"only zeros":       make([]byte, 1<<16),
		"cut":              good[:len(good)-1],
		"longer":           append(slices.Clone(good), 0),
		"no file system":   changed(func(p []byte) []byte { p[ext4MagicAt] = 0; return p }),
		"other text":       changed(func(p []byte) []byte { p[blockSize] ^= 1; return p }),
		"other checksum":   changed(func(p []byte) []byte { p[footer+16] ^= 1; return p }),
		"offset is far":    changed(func(p []byte) []byte { binary.BigEndian.PutUint64(p[footer:], 1<<63); return p }),
		"offset is -1":     changed(func(p []byte) []byte { binary.BigEndian.PutUint64(p[footer:], 1<<64-1); return p }),
		"length is huge":   changed(func(p []byte) []byte { binary.BigEndian.PutUint64(p[footer+8:], 1<<40); return p }),
		"sum overflows":    changed(func(p []byte) []byte { binary.BigEndian.PutUint64(p[footer+8:], 1<<64-1); return p }),
		"other fs":         templateFile(t, func(r *Record) { r.FileSystem = "xfs" }),
		"no text":          {},
		"a tarball":        []byte(strings.Repeat("tarball", 5000)),
		"only the footer":  good[footer:],
		"record without a": good[blockSize:],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readRecord(bytes.NewReader(file), int64(len(file)))
			assert.ErrorIs(t, err, ErrNotTemplate)
		})
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := readRecord(bytes.NewReader(p), int64(len(p))); err == nil {
			assert.LessOrEqual(t, r.Size, int64(len(p)))
		}
	})
}

// What others may write to is not mounted.
func TestTemplateOfOthers(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, nil)
	require.NoError(t, err)
	name := TemplateName("image", EngineRecord{Docker, "1.2.3", "overlay2"})
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, templateFile(t, nil), 0o644))
	_, err = d.Get(name)
	require.NoError(t, err)

	require.NoError(t, os.Chmod(path, 0o664))
	_, err = d.Get(name)
	assert.ErrorIs(t, err, ErrNotTemplate)
	require.NoError(t, os.Chmod(path, 0o644))

	require.NoError(t, os.Link(path, filepath.Join(dir, "other")))
	_, err = d.Get(name)
	assert.ErrorIs(t, err, ErrNotTemplate)
	require.NoError(t, os.Remove(filepath.Join(dir, "other")))

	require.NoError(t, os.Rename(path, filepath.Join(dir, "elsewhere")))
	require.NoError(t, os.Mkdir(path, 0o755))
	all, err := d.List()
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.ErrorIs(t, all[0].Err, ErrNotTemplate)
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, nil)
	require.NoError(t, err)
	for _, name := range []string{"", ".", "..", "../x.dataroot", "a/b.dataroot", ".hidden.dataroot", "x.tar", strings.Repeat("x", 250) + ".dataroot"} {
		_, err := d.Get(name)
		assert.ErrorIs(t, err, ErrNoTemplate, name)
		assert.ErrorIs(t, d.Remove(name), ErrNoTemplate, name)
	}
	assert.Equal(t, "a.podman-1-x.overlay.", TemplateName("a", EngineRecord{Podman, "1/x", "overlay"})[:len("a.podman-1-x.overlay.")])
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"Docker version 20.10.24+dfsg1, build 297e128\n":                                                 "20.10.24+dfsg1",
		"Docker version 29.0.0-beta.24, build unknown":                                                   "29.0.0-beta.24",
		"podman version 4.3.1\n":                                                                         "4.3.1",
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n":                  "1.6.20~ds1",
		"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da":                       "1.7.27",
		"containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376": "2.1.4",
	} {
		version, err := parseVersion(text)
		require.NoError(t, err)
		assert.Equal(t, want, version)
	}
	_, err := parseVersion("usage: true\n")
	assert.Error(t, err)
}
