package enginetest

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind is what an engine keeps images in.
type Kind int

// The kinds.
const (
	// Classic is Docker's own store. An image's identity is its config's digest,
	// and a layer is there by the chain of all below it.
	Classic Kind = iota
	// Containerd is Docker with containerd's store: identities are digests of
	// manifests, layers are blobs.
	Containerd
	// Podman is podman's compatible socket: identities are as in Classic, without
	// the algorithm.
	Podman
)

// Options of an [Engine]. The zero value of each field works.
type Options struct {
	Kind Kind
	// Version is the engine's. Default: one of 2025. With [Containerd], one before
	// 27 fails for an image that cannot be unpacked; 27 and later report success,
	// and say otherwise in a line of text (https://github.com/moby/moby/issues/48293).
	// From 28 on it reports which manifests can be used.
	Version string
}

// An Engine is a container engine.
type Engine struct {
	options Options
	dir     string // of the socket and the certificates
	server  http.Server
	closed  chan struct{}

	mu         sync.Mutex
	quirks     Quirks
	store      *store
	containers map[string]v1.Hash // the images that they use
	lastID     int
	requests   []*Request
}

// A Request is what an [Engine] was asked.
type Request struct {
	Method string
	// Path is without the version of the API, which is in Version.
	Path, Version, Query string
	// Received is how many bytes of an archive were read, so far.
	Received int64
}

// Start starts an engine on a socket in a temporary directory of its own. It ends
// with [Engine.Close].
func Start(o Options) (*Engine, error) {
	if o.Version == "" {
		o.Version = map[Kind]string{Classic: "28.5.2", Containerd: "28.5.2", Podman: "5.4.2"}[o.Kind]
	}
	dir, err := os.MkdirTemp("", "engine") // short: a socket's path has 108 bytes at most
	if err != nil {
		return nil, err
	}
	e := &Engine{options: o, dir: dir, closed: make(chan struct{}), store: newStore(o.Kind), containers: map[string]v1.Hash{}}
	e.server.Handler = http.HandlerFunc(e.serve)
	e.server.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that must fail
	l, err := net.Listen("unix", filepath.Join(dir, "engine.sock"))
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	go func() { _ = e.server.Serve(l) }() // ends with ErrServerClosed
	return e, nil
}

// New starts an engine that ends with the test.
func New(t interface {
	Fatal(args ...any)
	Cleanup(func())
}, o Options) *Engine {
	e, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Close ends the engine and every connection to it.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.closed:
		return
	default:
	}
	close(e.closed)
	_ = e.server.Close()
	_ = os.RemoveAll(e.dir)
}

// Address is what DOCKER_HOST would be, unix:///PATH.
func (e *Engine) Address() string { return "unix://" + filepath.Join(e.dir, "engine.sock") }

// ListenTCP makes the engine listen on a port of 127.0.0.1 too, tcp://HOST:PORT.
func (e *Engine) ListenTCP() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = e.server.Serve(l) }()
	return "tcp://" + l.Addr().String(), nil
}

// ListenTLS is [Engine.ListenTCP] with TLS. The server lets in only who has the
// client's certificate; ca.pem, cert.pem and key.pem are in certDir, as Docker's
// client names them.
func (e *Engine) ListenTLS() (address, certDir string, err error) {
	certDir = filepath.Join(e.dir, "certs")
	config, err := writeCertificates(certDir)
	if err != nil {
		return "", "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	go func() { _ = e.server.Serve(tls.NewListener(l, config)) }()
	return "tcp://" + l.Addr().String(), certDir, nil
}

// SetQuirks replaces what the engine does wrong.
func (e *Engine) SetQuirks(q Quirks) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.quirks = q
}

// Requests returns all requests so far, in order.
func (e *Engine) Requests() []Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Request
	for _, r := range e.requests {
		out = append(out, *r)
	}
	return out
}

// Forget empties the list of requests.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests = nil
}

// Loads returns how many bytes were read of each archive that was sent, in order.
func (e *Engine) Loads() []int64 {
	var received []int64
	for _, r := range e.Requests() {
		if r.Path == "/images/load" {
			received = append(received, r.Received)
		}
	}
	return received
}

// Pulls returns how often it was asked to pull.
func (e *Engine) Pulls() (n int) {
	for _, r := range e.Requests() {
		if r.Method == "POST" && (r.Path == "/images/create" || r.Path == "/libpod/images/pull") {
			n++
		}
	}
	return n
}

// Containers returns how many there are.
func (e *Engine) Containers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.containers)
}

// Use creates a container of an image, which release removes.
func (e *Engine) Use(reference string) (release func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.store.find(reference)
	if err != nil {
		return nil, err
	}
	id := e.newContainer(img)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.containers, id)
	}, nil
}

// Unname takes a reference from its image, and keeps the image.
func (e *Engine) Unname(reference string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.store.names, reference)
}

// Names returns what the references name: the identity of each image.
func (e *Engine) Names() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := map[string]string{}
	for name, id := range e.store.names {
		names[name] = id.String()
	}
	return names
}

// IDs returns the identities of all images, those without a name included.
func (e *Engine) IDs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id := range e.store.images {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	return ids
}

// Files returns the regular files that a container of the image would have, by
// their paths. The error says why there can be none.
func (e *Engine) Files(reference string) (map[string]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.store.find(reference)
	if err != nil {
		return nil, err
	}
	return e.store.files(img)
}
