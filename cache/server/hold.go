package server

import (
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
)

// A holder keeps tarballs open for a while after they were used: a client that has got
// a manifest asks for the blobs next, also of a tarball that was replaced meanwhile.
type holder struct {
	hold time.Duration

	mu   sync.Mutex
	held map[imageKey]*held
}

// imageKey identifies the image of a file: one name may be that of one after the other,
// also with the same image, as after a repair.
type imageKey struct {
	file    string
	digest  v1.Hash
	written int64
}

func (i image) key() imageKey { return imageKey{i.file, i.info.Image.Digest(), i.written} }

// held is an open tarball.
type held struct {
	image   image
	tarball *tarball.Tarball
	users   int
	timer   *time.Timer // closes it; nil while there are users
}

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
	if h.hold < 0 {
		h.close(entry)
		return
	}
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
