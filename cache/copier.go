package cache

import "context"

// copyLength is how many bytes of a layer are copied before they count: small
// enough for the hashers to keep pace, large enough for a file server, to which each
// copy is a request.
const copyLength = 16 << 20

// copyLayers copies the layers that other tarballs have, while others are fetched
// and all are hashed. One at a time: two writers would wait for the same file.
func (f *fill) copyLayers(ctx context.Context) error {
	defer f.options.allCopied()
	for _, l := range f.layers {
		for {
			w, from := f.takeLocal(l)
			if w == nil {
				break
			}
			if err := f.copySpan(ctx, w, from); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeLocal takes a span of a layer that a tarball has, nil if there is none (any
// more): then the source has what is missing.
func (f *fill) takeLocal(l *layerFill) (*work, localLayer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(l.local) == 0 || l.frontier() == l.size {
		return nil, localLayer{}
	}
	s := l.spans[l.front]
	s.active, s.reserved = true, s.end
	return &work{l, s, l.round}, l.local[0]
}

// copySpan copies what a span lacks. Where that cannot be read the layer is looked
// for in the next place: the error is that of the file, or of ctx.
func (f *fill) copySpan(ctx context.Context, w *work, from localLayer) error {
	l, s := w.layer, w.span
	for at := s.pos; at < s.end; {
		n := min(s.end-at, copyLength)
		err := copyRange(ctx, f.file, l.offset+at, from.file, from.offset+at, n)
		if isWrite(err) || ctx.Err() != nil {
			return err
		}
		if err == nil { // before anybody can find it wrong
			f.options.copied(l.digest, from, n)
			f.options.journal.add(l.digest, at, at+n)
		}
		f.mu.Lock()
		if err != nil {
			l.local = l.local[1:]
			s.active, s.reserved = false, s.pos
			if len(l.local) == 0 && l.present() == 0 {
				l.resumed = false // what comes now is the source's alone
			}
		} else {
			at += n
			s.pos, s.said = at, at
			f.progress.Done += n
		}
		progress := f.progress
		f.cond.Broadcast()
		f.mu.Unlock()
		if err != nil {
			f.options.unreadable(l.digest, from, err)
			return nil
		}
		if f.options.Progress != nil {
			f.options.Progress(progress)
		}
	}
	return nil
}
