package enginetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// named is an image of an archive, and what an engine found wrong with it that
// does not keep it from being kept.
type named struct {
	image  *stored
	names  []string
	broken error
}

// body is an archive as the engine reads it.
type body struct {
	r      io.Reader
	engine *Engine
	record *Request // guarded by the engine's mutex
	quirks Quirks
	paused bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.quirks.Paused != nil && !b.paused {
		b.engine.mu.Lock()
		left := b.quirks.PauseAfter - b.record.Received
		b.engine.mu.Unlock()
		if left <= 0 {
			b.paused = true
			select {
			case b.quirks.Paused <- struct{}{}:
			case <-b.engine.closed:
			}
			select {
			case <-b.quirks.Resume:
			case <-b.engine.closed:
			}
		} else {
			p = p[:min(int64(len(p)), left)]
		}
	}
	n, err := b.r.Read(p)
	b.engine.mu.Lock()
	b.record.Received += int64(n)
	b.engine.mu.Unlock()
	return n, err
}

func (e *Engine) load(w http.ResponseWriter, r *http.Request, record *Request, q Quirks) {
	archive := &body{r: r.Body, engine: e, record: record, quirks: q}
	out := &answer{w: w, cut: q.CutAnswerAfter}
	if n := q.StopReadingAfter; n > 0 {
		_, _ = io.CopyN(io.Discard, archive, n)
		e.refuse(out, said("write /var/lib/docker/tmp/docker-import-1/blobs: no space left on device"))
		return
	}
	files, err := readArchive(archive)
	if err == nil {
		_, err = io.Copy(io.Discard, archive) // what follows the archive's end
	}
	switch {
	case err != nil:
		e.refuse(out, err)
		return
	case q.LoadStatus != 0:
		fail(w, q.LoadStatus, "load failed")
		return
	case q.ErrorInStream != "":
		e.refuse(out, said(q.ErrorInStream))
		return
	}
	if q.RefuseDelta {
		if err := complete(files); err != nil {
			e.refuse(out, err)
			return
		}
	}
	e.mu.Lock()
	lines, err := e.keep(files, q)
	unpacked := e.store.unpackedNow
	e.store.unpackedNow = nil
	e.mu.Unlock()
	if q.DiesUnpacking && e.options.Kind == Containerd {
		panic(http.ErrAbortHandler)
	}
	// As Docker's classic store, in two steps for each layer.
	if e.options.Kind == Classic && r.URL.Query().Get("quiet") != "1" {
		for n, size := range unpacked {
			for _, current := range []int{size / 2, size} {
				out.line(map[string]any{"status": "Loading layer", "id": fmt.Sprint("layer", n), "progressDetail": map[string]int{"current": current, "total": size}})
			}
		}
	}
	if err != nil {
		e.refuse(out, err)
		return
	}
	for _, l := range lines {
		out.line(map[string]any{"stream": l})
	}
}

// keep stores an archive's images, and returns what to say of it.
func (e *Engine) keep(files map[string][]byte, q Quirks) (lines []string, err error) {
	s := e.store
	s.diesFirst = q.DiesUnpacking
	defer s.collect()
	var loaded []named
	switch s.kind {
	case Containerd:
		loaded, err = s.loadContainerd(files)
	case Podman:
		loaded, err = s.loadPodman(files)
	default:
		loaded, err = s.loadClassic(files)
	}
	if err != nil {
		return nil, err
	}
	for _, n := range loaded {
		img := n.image
		s.images[img.id] = img
		if q.WrongImage {
			other := *img
			other.id = hashOf([]byte("not " + img.id.String()))
			s.images[other.id], img = &other, &other
		}
		for _, name := range n.names {
			if q.NoName {
				continue
			}
			s.names[name] = img.id
			if n.broken != nil && e.before27() {
				return nil, n.broken
			}
			lines = append(lines, "Loaded image: "+name+"\n")
			if n.broken != nil && !q.SilentBroken {
				lines = append(lines, fmt.Sprintf("Error unpacking image %s: %v\n", name, n.broken))
			}
		}
	}
	return lines, nil
}

// complete returns an error unless an archive has a file for every layer.
func complete(files map[string][]byte) error {
	index, err := readIndex(files)
	if err != nil {
		return err
	}
	for _, d := range index {
		_, manifest, err := readManifest(d, func(h v1.Hash) ([]byte, error) { return open(files, blobPath(h)) })
		if err != nil {
			return err
		}
		for _, l := range manifest.Layers {
			if _, err := open(files, blobPath(l.Digest)); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuse says why a load failed: Docker in an answer with status 200, podman with
// one that says so.
func (e *Engine) refuse(out *answer, err error) {
	if e.options.Kind == Podman {
		fail(out.w, http.StatusInternalServerError, "failed to load image: "+err.Error())
		return
	}
	out.line(map[string]any{"errorDetail": map[string]string{"message": err.Error()}, "error": err.Error()})
}

// answer is the answer to a load, line by line.
type answer struct {
	w    http.ResponseWriter
	cut  int64 // 0: not
	sent int64
}

func (a *answer) line(m map[string]any) {
	raw, _ := json.Marshal(m) // texts always encode
	raw = append(raw, "\r\n"...)
	if a.cut > 0 && a.sent+int64(len(raw)) > a.cut {
		_, _ = a.w.Write(raw[:a.cut-a.sent])
		_ = http.NewResponseController(a.w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = a.w.Write(raw)
	a.sent += int64(len(raw))
}

// before27 reports whether the engine fails for an image that cannot be unpacked.
func (e *Engine) before27() bool {
	major, _, _ := strings.Cut(e.options.Version, ".")
	return len(major) < 2 || major < "27"
}
