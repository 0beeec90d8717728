package server

import (
	"cmp"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
)

// A holder keeps tarballs open for a while after they were used: a client that has got
// a manifest asks for the blobs next, also of a tarball that was replaced meanwhile.
type holder struct {
	hold time.Duration
	max  int // how many are held that nobody reads; [maxHeld] if it is 0

	mu     sync.Mutex
	held   map[imageKey]*held
	clock  uint64
	closed bool
}

// imageKey identifies the image of a file: one name may be that of one after the other,
// also with the same image, as after a repair.
type imageKey struct {
	file    string
	digest  v1.Hash
	version version
}

func (i image) key() imageKey { return imageKey{i.file, i.info.Image.Digest(), i.version} }

// held is an open tarball.
type held struct {
	image   image
	tarball *tarball.Tarball
	users   int
	timer   *time.Timer // closes it; nil while there are users
	idle    uint64      // when the last user left, as a number that grows
}

// maxHeld is how many tarballs are held without a request in progress: each is an open
// file, and keeps the space of one that was replaced.
const maxHeld = 256

// acquire returns the open tarball of an image, opening it if it is not held. done
// must be called once.
func (h *holder) acquire(i image, open func() (*tarball.Tarball, error)) (t *tarball.Tarball, done func(), err error) {
	entry := h.use(i.key(), nil)
	if entry == nil {
		t, err := open() // not under the lock: a file server may take its time
		if err != nil {
			return nil, nil, err
		}
		if entry = h.use(i.key(), &held{image: i, tarball: t}); entry.tarball != t {
			_ = t.Close() // another request was quicker
		}
	}
	return entry.tarball, sync.OnceFunc(func() { h.release(entry) }), nil
}

// use returns the entry of a key, for one user more. opened becomes the entry where
// there is none; nil where that is nil.
func (h *holder) use(key imageKey, opened *held) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	entry := h.held[key]
	switch {
	case entry == nil && opened == nil:
		return nil
	case entry == nil:
		entry = opened
		if h.held == nil {
			h.held = map[imageKey]*held{}
		}
		h.held[key] = entry
	}
	if entry.timer != nil {
		entry.timer.Stop()
		entry.timer = nil
	}
	entry.users++
	return entry
}

// release ends a use. The tarball is closed when it is not used for long.
func (h *holder) release(entry *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if entry.users--; entry.users > 0 {
		return
	}
	if h.hold < 0 || h.closed {
		h.close(entry)
		return
	}
	h.clock++
	entry.idle = h.clock
	h.closeOldest()
	var timer *time.Timer
	timer = time.AfterFunc(h.hold, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if entry.timer == timer { // not acquired again since
			h.close(entry)
		}
	})
	entry.timer = timer
}

// closeOldest makes room for one more, if there are too many.
func (h *holder) closeOldest() {
	idle := 0
	var oldest *held
	for _, entry := range h.held {
		if entry.timer != nil {
			if idle++; oldest == nil || entry.idle < oldest.idle {
				oldest = entry
			}
		}
	}
	if idle >= cmp.Or(h.max, maxHeld) {
		oldest.timer.Stop()
		h.close(oldest)
	}
}

// closeAll closes what is not in use now, and the rest when it no longer is.
func (h *holder) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, entry := range h.held {
		if entry.timer != nil {
			entry.timer.Stop()
			h.close(entry)
		}
	}
}

// close closes a tarball. The lock must be held.
func (h *holder) close(entry *held) {
	delete(h.held, entry.image.key())
	_ = entry.tarball.Close()
}

// images returns what is held.
func (h *holder) images() []image {
	h.mu.Lock()
	defer h.mu.Unlock()
	var images []image
	for _, entry := range h.held {
		images = append(images, entry.image)
	}
	return images
}
