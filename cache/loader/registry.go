package loader

import (
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
)

// pulledAs is the repository that a tarball is served as. Always the same: containerd
// notes with each layer the repositories that it came from.
const pulledAs = "dockercache/image"

// A registry serves one tarball on loopback, to one engine. It counts what was sent,
// and keeps the tarball's failures apart from the engine's.
type registry struct {
	// reference is what the engine shall pull. Its tag is a secret: other users of the
	// machine can reach the port too. Who knows a digest can ask for that.
	reference string
	server    http.Server
	total     int64
	tell      func(cache.Progress) // nil: nobody

	mu       sync.Mutex
	requests int
	sent     int64
	layers   int64 // of sent, those of blobs but the config's
	err      error
	ended    bool
}

func serve(tarball *cache.Tarball, tell func(cache.Progress)) (*registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	tag := strings.ToLower(rand.Text())
	r := &registry{
		reference: listener.Addr().String() + "/" + pulledAs + ":" + tag,
		total:     tarball.Layout.Size(), tell: tell,
	}
	config := "/" + tarball.Image.ConfigDigest().String()
	images := server.NewImage(tarball, pulledAs, tag, &server.Options{Failed: r.failed})
	r.server = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			r.requests++
			r.mu.Unlock()
			layer := strings.Contains(req.URL.Path, "/blobs/") && !strings.HasSuffix(req.URL.Path, config)
			images.ServeHTTP(&meter{w, r, layer}, req)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // of clients that are no such
	}
	go func() { _ = r.server.Serve(listener) }() // ends with ErrServerClosed
	return r, nil
}

func (r *registry) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// asked tells whether anybody has asked for anything.
func (r *registry) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests > 0
}

// end ends the serving. It returns how many bytes were sent, how many of them are of
// layers, and what kept the tarball from being read, if anything.
func (r *registry) end() (sent, layers int64, err error) {
	_ = r.server.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true // nobody is told any more
	if r.err != nil {
		err = &sourceError{r.err}
	}
	return r.sent, r.layers, err
}

// meter counts what an answer has.
type meter struct {
	http.ResponseWriter
	registry *registry
	layer    bool
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	r := m.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent += int64(n)
	if m.layer {
		r.layers += int64(n)
	}
	if r.tell != nil && !r.ended {
		r.tell(cache.Progress{Done: min(r.sent, r.total), Total: r.total})
	}
	return n, err
}
