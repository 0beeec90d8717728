package cache

import (
	"context"
	"sync"
	"time"
)

// DefaultConnections is how many ranges an [Engine] reads at a time by default.
// SOCI recommends 10 to 20 for ECR, which gives some 25 MB/s to each.
const DefaultConnections = 16

// EngineOptions of an [Engine]. The zero value of each field works.
type EngineOptions struct {
	// Connections is how many ranges are read at a time, over all images that
	// the engine fills. Default: [DefaultConnections].
	Connections int
}

// An Engine fills tarballs. Its connections are shared by all fills that run at
// the same time; one that waits to try again does not hold any.
//
// Memory: 1 MiB for each connection, and 256 KiB for each fill and CPU, and 1 MiB for each
// fill that copies where the kernel cannot.
type Engine struct {
	slots   chan struct{}
	buffers sync.Pool
	ranging ranging
	wait    func(ctx context.Context, d time.Duration) error // tests replace it
}

// NewEngine returns an engine. Nil options are the defaults.
func NewEngine(o *EngineOptions) *Engine {
	connections := DefaultConnections
	if o != nil && o.Connections > 0 {
		connections = o.Connections
	}
	e := &Engine{slots: make(chan struct{}, connections), ranging: defaultRanging, wait: sleep}
	e.buffers.New = func() any { b := make([]byte, readBuffer); return &b }
	return e
}

func (e *Engine) connections() int { return cap(e.slots) }

func (e *Engine) acquire(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Engine) release() { <-e.slots }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
