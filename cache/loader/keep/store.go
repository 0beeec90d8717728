package keep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A Store is where the tarballs are. It must be safe for concurrent use.
type Store interface {
	// Path names it.
	Path() string
	// Look returns all tarballs by their names.
	Look(ctx context.Context) (map[string]Version, error)
	// Get opens a tarball.
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
	// Touch records that a tarball was used.
	Touch(ctx context.Context, name string) error
}

// A Version is what a name stands for at one time.
type Version struct {
	// ID is another one when the tarball is.
	ID string
	// Written is when it was published, by the clock of the machine that did.
	Written time.Time
}

// Directory is the store of a directory. A look reads the names, and the size, the time and the
// number of each file.
func Directory(dir *cache.Dir) Store { return directory{dir} }

type directory struct{ *cache.Dir }

func (d directory) Look(context.Context) (map[string]Version, error) {
	files, err := os.ReadDir(d.Path())
	if err != nil {
		return nil, err
	}
	found := map[string]Version{}
	for _, f := range files {
		if name := f.Name(); strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".tar") || !f.Type().IsRegular() {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		found[f.Name()] = Version{fmt.Sprint(info.Size(), info.ModTime().UnixNano(), sys.Inode(info)), info.ModTime()}
	}
	return found, nil
}

// A Lister is a [cache.Dir] or a [github.com/dockercache/dockercache/cache/bucket.Bucket].
type Lister interface {
	Path() string
	List(ctx context.Context) ([]cache.Entry, error)
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
	Touch(ctx context.Context, name string) error
}

// Listed is the store of what can only be listed, such as a bucket.
func Listed(l Lister) Store { return listed{l} }

type listed struct{ Lister }

func (l listed) Look(ctx context.Context) (map[string]Version, error) {
	entries, err := l.List(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]Version{}
	for _, e := range entries {
		id := fmt.Sprint(e.Size, e.Written.UnixNano(), e.Inode)
		if e.Info != nil {
			id += e.Info.Image.Digest().String() + e.Info.Image.Reference()
		}
		found[e.Name] = Version{id, e.Written}
	}
	return found, nil
}
