//go:build !linux

package dataroot

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/dockercache/dockercache/cache/tarball"
)

// unsupported is the error of what only Linux has.
func unsupported() error {
	return fmt.Errorf("%w: it needs Linux, this is %s", ErrUnsupported, runtime.GOOS)
}

func canMount() error { return unsupported() }

func (b *builder) make(context.Context, string, *os.File) error { return unsupported() }

func copyTemplate(context.Context, *os.File, *os.File, int64, bool) (Way, int64, error) {
	return "", 0, unsupported()
}

func mountAt(context.Context, *os.File, int64, *os.File, string) error { return unsupported() }

func createNameless(string) (*os.File, error) { return nil, unsupported() }

func discard(context.Context, string) error { return unsupported() }

func clones() ([]Clone, error) { return nil, unsupported() }

func (d *Dir) verify(context.Context, string, Engine, []*tarball.Tarball) error { return unsupported() }
