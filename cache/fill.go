package cache

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// readBuffer is how much is read from a connection before it is written. All
// connections write one file, whose lock they wait for: with 256 KiB the same
// work took 10 to 20 % more CPU time. With 16 connections it is what most of the
// memory goes to.
const readBuffer = 1 << 20

// Progress says how far a tarball is.
type Progress struct {
	// Done is how many bytes of layers are in the file, those of an earlier run
	// included. It falls when a layer has to be fetched again.
	Done int64
	// Total is how many there will be.
	Total int64
}

// FillOptions of [Engine.Fill]. The zero value of each field works.
type FillOptions struct {
	// Progress, when not nil, is called at the beginning and whenever bytes of
	// layers were written. It is called concurrently and must be quick.
	Progress func(Progress)

	done    map[v1.Hash][]interval // what an earlier run has written
	journal *journal               // told what is written; nil for none
	// skip are layers that another call fills: how many of their bytes there are.
	skip     map[v1.Hash]int64
	verified func(layer v1.Hash) // is told of each layer that is proven
	damaged  func(layer v1.Hash) // is told when what did not come from src is wrong

	// Where layers can be copied from; the functions go with it.
	local      map[v1.Hash][]localLayer
	copied     func(layer v1.Hash, from localLayer, n int64)
	unreadable func(layer v1.Hash, from localLayer, err error)
	allCopied  func()              // local is no longer needed
	restarted  func(layer v1.Hash) // what there was of it does not count; nil: nobody is told
}

// Fill writes all that the layout plans to file: the literal bytes, and the
// layers from src, in ranges side by side, each straight to its place. The size
// and sha256 of every layer are proven by what is in the file. It returns how
// many bytes came from src, also when it fails.
//
// A range that fails is asked for again from where it stopped, after a wait
// that grows, until nothing has come for six times in a row. An error
// of src may say more by these methods, found with [errors.As]:
//
//	Temporary() bool            false: asking again is in vain
//	RetryAfter() time.Duration  how long to wait before
//	IgnoresRange() bool         the source serves this blob only from offset 0
//
// A layer with wrong bytes is fetched once more; before that src is told, if it
// has a method Distrust(v1.Hash), so that it can take another origin. A method
// Origins(v1.Hash) []string lets the error name where wrong bytes came from.
//
// After an error the file holds nothing that may be used. Bytes that are not
// the layer's wrap [ErrBlobSize] or [ErrBlobDigest]; other errors are those of
// src and file, and say which of the two it was.
func (e *Engine) Fill(ctx context.Context, file *os.File, layout *Layout, src BlobSource, o *FillOptions) (downloaded int64, err error) {
	if o == nil {
		o = &FillOptions{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &fill{engine: e, file: file, src: src, options: o, cancel: cancel}
	f.cond.L = &f.mu
	for _, s := range layout.segments {
		if !s.IsBlob() {
			if _, err := file.WriteAt(s.Literal, s.Offset); err != nil {
				return 0, fmt.Errorf("write: %w", err)
			}
			continue
		}
		if n, ok := o.skip[s.Blob]; ok {
			f.progress.Total += s.Length
			f.progress.Done += n
			continue
		}
		f.layers = append(f.layers, newLayerFill(s, e.ranging, e.connections(), o.done[s.Blob], o.local[s.Blob]))
	}
	for _, l := range f.layers {
		f.progress.Total += l.size
		f.progress.Done += l.present()
	}
	if o.Progress != nil {
		o.Progress(f.progress)
	}
	// The largest first: its sha256 is one after the other and takes longest.
	slices.SortStableFunc(f.layers, func(a, b *layerFill) int { return cmp.Compare(b.size, a.size) })

	stop := context.AfterFunc(ctx, func() { f.mu.Lock(); f.cond.Broadcast(); f.mu.Unlock() })
	defer stop()
	var group errgroup.Group
	for range min(e.connections(), f.mostWorkers()) {
		group.Go(func() error { return f.stopOn(f.fetchSpans(ctx)) })
	}
	if len(o.local) > 0 {
		group.Go(func() error { return f.stopOn(f.copyLayers(ctx)) })
	}
	for range min(runtime.GOMAXPROCS(0), len(f.layers)) {
		group.Go(func() error { return f.stopOn(f.hashLayers(ctx)) })
	}
	if err := group.Wait(); err != nil {
		f.sayRest()
		return f.downloaded, context.Cause(ctx) // the first error, or the caller's reason
	}
	return f.downloaded, nil
}

// fill is one call of Fill.
type fill struct {
	engine  *Engine
	file    *os.File
	src     BlobSource
	options *FillOptions
	cancel  context.CancelCauseFunc

	mu         sync.Mutex
	cond       sync.Cond // work appeared, bytes were written, a layer is verified, or the context ended
	layers     []*layerFill
	progress   Progress
	downloaded int64
}

func (f *fill) mostWorkers() int {
	n := 0
	for _, l := range f.layers {
		n += int(l.size/l.least) + 1
	}
	return n
}

// stopOn ends all others when one fails.
func (f *fill) stopOn(err error) error {
	if err != nil {
		f.cancel(err)
	}
	return err
}

// streamFrom begins a layer anew as one span, for a source that has no ranges.
func (f *fill) streamFrom(w *work) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.round == w.layer.round && !w.layer.stream {
		w.layer.stream = true
		f.restart(w.layer)
		f.cond.Broadcast()
	}
}

// restart begins a layer anew, for the journal too.
func (f *fill) restart(l *layerFill) {
	f.progress.Done -= l.present()
	l.restart()
	f.options.journal.forget(l.digest)
	if f.options.restarted != nil {
		f.options.restarted(l.digest)
	}
}

// sayRest tells the journal what was written since its last lines.
func (f *fill) sayRest() {
	for _, l := range f.layers {
		for _, s := range l.spans {
			f.options.journal.add(l.digest, s.said, s.pos)
		}
	}
}
