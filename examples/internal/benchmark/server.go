//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/registry/registrytest"
)

const (
	serveCommand = "serve"

	// The links: how the registry is reached. Those of [pairs] are links too.
	straight = "straight"
	limited  = "limited"

	// What ECR gives to one connection from the same region.
	connectionRate = 25_000_000 // bytes per second
	latency        = 20 * time.Millisecond
)

// A link is a way to the registry with its limits. The server opens as many as it is
// asked for, each with a listener of its own. The zero value has no limits.
type link struct {
	BytesPerSecond      int64 // of each connection
	TotalBytesPerSecond int64 // of all connections together
	Latency             time.Duration

	// Slower, when not 0, is what BytesPerSecond is divided by: of the connection
	// that is accepted as number Only, once it was sent more than After bytes; of all
	// if Only is 0, once that many were sent to all together. Whatever is sent on a
	// slow connection is slow.
	Slower int64
	Only   int
	After  int64

	// Drip is that one byte a second comes of each layer that is asked for, or range.
	Drip bool

	// RequestsPerSecond, when not 0, is how many requests are served, as many at once as
	// in a second after a pause. The others are refused, with 429 and Retry-After: 1.
	// Such a link needs a token, which is another request.
	RequestsPerSecond int
}

// fixedLinks returns those that are open all the time.
func fixedLinks() map[string]link {
	links := map[string]link{
		straight: {},
		limited:  {BytesPerSecond: connectionRate, Latency: latency},
	}
	for _, p := range pairs {
		links[p.title+", mirror"] = link{BytesPerSecond: p.connection, TotalBytesPerSecond: p.mirrorTotal, Latency: p.latency}
		links[p.title+", own"] = link{BytesPerSecond: p.connection, TotalBytesPerSecond: p.ownTotal, Latency: p.latency}
	}
	return links
}

// rate is what a connection has at the moment; see [registrytest.Throttle].
func (l link) rate(c registrytest.Conn) int64 {
	sent := c.Total
	if l.Only > 0 {
		sent = c.Sent
	}
	if l.Slower == 0 || l.Only > 0 && l.Only != c.Number || sent < l.After {
		return l.BytesPerSecond
	}
	return max(l.BytesPerSecond/l.Slower, 1)
}

// stats is what a link of the registry has had so far.
type stats struct {
	Written                 int64 // bytes sent
	Manifests, Blobs, Other int64 // requests that were served; Other are those to log in
	Refused                 int64 // requests
}

func (s stats) since(before stats) stats {
	return stats{s.Written - before.Written, s.Manifests - before.Manifests, s.Blobs - before.Blobs, s.Other - before.Other, s.Refused - before.Refused}
}

// requests is how many there were of all kinds.
func (s stats) requests() int64 { return s.Manifests + s.Blobs + s.Other + s.Refused }

// serve is the registry, a process of its own: what it costs is not counted. It is
// the least that all programs pull from, and gives files to the socket by
// sendfile. It prints HOST:PORT of where links are opened and asked about, and ends
// when its standard input does.
func serve(dir string, stdin io.Reader, stdout io.Writer) {
	var mu sync.Mutex
	open := map[string]*registry{} // by HOST:PORT
	mux := http.NewServeMux()
	mux.HandleFunc("/open", func(w http.ResponseWriter, r *http.Request) {
		var l link
		if err := json.NewDecoder(r.Body).Decode(&l); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		added := newRegistry(dir, l)
		host := added.throttle.Addr().String()
		mu.Lock()
		defer mu.Unlock()
		if old := open[r.FormValue("instead")]; old != nil {
			_ = old.server.Close() // what is cut off belongs to a run that has ended
			delete(open, r.FormValue("instead"))
		}
		open[host] = added
		_ = json.NewEncoder(w).Encode(host) // an answer that is cut short is no JSON
	})
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked := open[r.FormValue("host")]
		mu.Unlock()
		if asked == nil {
			http.NotFound(w, r)
			return
		}
		above, _ := strconv.ParseInt(r.FormValue("above"), 10, 64) // as server.stats writes it
		for asked.throttle.Written() <= above && r.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		_ = json.NewEncoder(w).Encode(asked.stats())
	})
	control := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = http.Serve(control, mux) }() // ends with the process
	check(json.NewEncoder(stdout).Encode(control.Addr().String()))
	must(io.Copy(io.Discard, stdin))
}

// registry is the registry at the end of a link.
type registry struct {
	link
	dir      string
	throttle *registrytest.Throttle
	server   *http.Server

	manifests, blobs, other, refused atomic.Int64

	mu sync.Mutex
	// bucket is how many more requests would be served at the time at, of a link
	// that serves only some.
	bucket float64
	at     time.Time
}

func newRegistry(dir string, l link) *registry {
	r := &registry{link: l, dir: dir, bucket: float64(l.RequestsPerSecond), at: time.Now()}
	r.throttle = &registrytest.Throttle{Listener: must(net.Listen("tcp", "127.0.0.1:0")),
		BytesPerSecond: l.BytesPerSecond, TotalBytesPerSecond: l.TotalBytesPerSecond, Latency: l.Latency}
	if l.Slower > 0 {
		r.throttle.Rate = l.rate
	}
	r.server = &http.Server{Handler: r.handler(), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = r.server.Serve(r.throttle) }() // ends when it is closed, or with the process
	return r
}

func (r *registry) stats() stats {
	return stats{r.throttle.Written(), r.manifests.Load(), r.blobs.Load(), r.other.Load(), r.refused.Load()}
}

// token is the only one there is.
const token = "anonymous"

func (r *registry) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, req *http.Request) {
		r.other.Add(1)
		if req.URL.Path != "/v2/" { // which answers that no login is needed
			http.NotFound(w, req)
		}
	})
	mux.HandleFunc("/v2/bench/image/blobs/{digest}", func(w http.ResponseWriter, req *http.Request) {
		r.blobs.Add(1)
		w.Header().Set("Content-Type", "application/octet-stream")
		digest := req.PathValue("digest")
		if s, err := os.Stat(blobFile(r.dir, digest)); r.Drip && err == nil && s.Size() > mostConfig {
			w = drip{w, req.Context()}
		}
		serveFile(w, req, r.dir, digest)
	})
	mux.HandleFunc("/v2/bench/image/manifests/{reference}", func(w http.ResponseWriter, req *http.Request) {
		r.manifests.Add(1)
		serveManifest(w, req, r.dir)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		r.other.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case r.RequestsPerSecond == 0:
		case !r.take(time.Now()):
			r.refused.Add(1)
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
			return
		case strings.HasPrefix(req.URL.Path, "/v2/") && req.Header.Get("Authorization") != "Bearer "+token:
			r.other.Add(1)
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="bench"`, req.Host))
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		mux.ServeHTTP(w, req)
	})
}

// take reports whether a request is served, and counts it if so. One that is refused
// does not put off the next.
func (r *registry) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	most := float64(r.RequestsPerSecond)
	r.bucket = min(r.bucket+now.Sub(r.at).Seconds()*most, most)
	r.at = now
	if r.bucket < 1 {
		return false
	}
	r.bucket--
	return true
}

// refuse answers with an error as registries write it.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"refused"}]}`, code)
}

// mostConfig is the size of the largest config. It comes at once, so that an image
// gets as far as its layers.
const mostConfig = 16 << 10

// A drip is an answer of which a byte a second comes.
type drip struct {
	http.ResponseWriter
	ctx context.Context
}

func (d drip) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		if _, err = d.ResponseWriter.Write(p[n : n+1]); err == nil {
			n, err = n+1, http.NewResponseController(d.ResponseWriter).Flush()
		}
		select {
		case <-time.After(time.Second):
		case <-d.ctx.Done():
			return n, d.ctx.Err()
		}
	}
	return n, err
}

func serveManifest(w http.ResponseWriter, r *http.Request, dir string) {
	reference := r.PathValue("reference")
	if !strings.Contains(reference, ":") { // a tag
		blob, err := os.Readlink(filepath.Join(dir, "tag-"+reference))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		reference = "sha256:" + strings.TrimPrefix(blob, "blob-")
	}
	w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
	w.Header().Set("Docker-Content-Digest", reference)
	serveFile(w, r, dir, reference)
}

func blobFile(dir, digest string) string {
	return filepath.Join(dir, "blob-"+strings.TrimPrefix(digest, "sha256:"))
}

func serveFile(w http.ResponseWriter, r *http.Request, dir, digest string) {
	f, err := os.Open(blobFile(dir, digest))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	http.ServeContent(w, r, "", time.Time{}, f)
}

// server is the registry as the benchmark sees it.
type server struct {
	control string            // HOST:PORT
	hosts   map[string]string // HOST:PORT of each link
	stop    func()
}

func startServer(ctx context.Context, dir string) *server {
	cmd := exec.CommandContext(ctx, os.Args[0], serveCommand, dir)
	cmd.Stderr = os.Stderr
	stdin, stdout := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	check(cmd.Start())
	s := &server{hosts: map[string]string{}, stop: func() { _ = stdin.Close(); _ = cmd.Wait() }}
	err := json.NewDecoder(stdout).Decode(&s.control)
	if err == nil {
		err = catch(func() {
			for name, l := range fixedLinks() {
				s.open(ctx, name, l)
			}
		})
	}
	if err != nil {
		s.stop()
		check(fmt.Errorf("start the registry: %w", err))
	}
	return s
}

// open opens a link, with no connections and all requests allowed, in place of the
// one that had the name.
func (s *server) open(ctx context.Context, name string, l link) {
	path := fmt.Sprintf("http://%s/open?instead=%s", s.control, s.hosts[name])
	var host string
	check(json.Unmarshal(send(ctx, http.MethodPost, path, bytes.NewReader(must(json.Marshal(l)))), &host))
	s.hosts[name] = host
}

// repository is the images' repository at a link of the registry.
func (s *server) repository(link string) string { return s.hosts[link] + "/" + repositoryName }

const repositoryName = "bench/image"

// reference of an image at a link of the registry.
func (s *server) reference(link, tag string) string { return s.repository(link) + ":" + tag }

// stats waits until a link has sent more than above bytes.
func (s *server) stats(ctx context.Context, link string, above int64) (now stats) {
	check(json.Unmarshal(get(ctx, fmt.Sprintf("http://%s/stats?host=%s&above=%d", s.control, s.hosts[link], above)), &now))
	return now
}

// get sends a request on a new connection.
func get(ctx context.Context, url string) []byte { return send(ctx, http.MethodGet, url, nil) }

func send(ctx context.Context, method, url string, body io.Reader) []byte {
	req := must(http.NewRequestWithContext(ctx, method, url, body))
	req.Close = true
	resp := must(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	return must(io.ReadAll(resp.Body))
}
