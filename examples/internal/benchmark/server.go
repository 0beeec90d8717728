//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// throttles returns the limits of each link.
func throttles() map[string]*registrytest.Throttle {
	links := map[string]*registrytest.Throttle{
		straight: {},
		limited:  {BytesPerSecond: connectionRate, Latency: latency},
	}
	for _, p := range pairs {
		links[p.title+", mirror"] = &registrytest.Throttle{BytesPerSecond: p.connection, TotalBytesPerSecond: p.mirrorTotal, Latency: p.latency}
		links[p.title+", own"] = &registrytest.Throttle{BytesPerSecond: p.connection, TotalBytesPerSecond: p.ownTotal, Latency: p.latency}
	}
	return links
}

// stats is what a link of the registry has had so far.
type stats struct {
	Written                 int64 // bytes sent
	Manifests, Blobs, Other int64 // requests; Other are those to log in
}

func (s stats) since(before stats) stats {
	return stats{s.Written - before.Written, s.Manifests - before.Manifests, s.Blobs - before.Blobs, s.Other - before.Other}
}

// serve is the registry, a process of its own: what it costs is not counted. It is
// the least that all programs pull from, and gives files to the socket by
// sendfile. It prints HOST:PORT of each link, and ends when its standard input
// does.
func serve(dir string, stdin io.Reader, stdout io.Writer) {
	hosts := map[string]string{}
	for link, t := range throttles() {
		t.Listener = must(net.Listen("tcp", "127.0.0.1:0"))
		hosts[link] = t.Addr().String()
		var manifests, blobs, other atomic.Int64
		mux := http.NewServeMux()
		mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
			other.Add(1)
			if r.URL.Path != "/v2/" { // which answers that no login is needed
				http.NotFound(w, r)
			}
		})
		mux.HandleFunc("/v2/bench/image/blobs/{digest}", func(w http.ResponseWriter, r *http.Request) {
			blobs.Add(1)
			w.Header().Set("Content-Type", "application/octet-stream")
			serveFile(w, r, dir, r.PathValue("digest"))
		})
		mux.HandleFunc("/v2/bench/image/manifests/{reference}", func(w http.ResponseWriter, r *http.Request) {
			manifests.Add(1)
			serveManifest(w, r, dir)
		})
		mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
			above, _ := strconv.ParseInt(r.URL.Query().Get("above"), 10, 64) // as server.stats writes it
			for t.Written() <= above && r.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			// An answer that is cut short is no JSON.
			_ = json.NewEncoder(w).Encode(stats{t.Written(), manifests.Load(), blobs.Load(), other.Load()})
		})
		go func() { _ = http.Serve(t, mux) }() // ends with the process
	}
	check(json.NewEncoder(stdout).Encode(hosts))
	must(io.Copy(io.Discard, stdin))
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

func serveFile(w http.ResponseWriter, r *http.Request, dir, digest string) {
	f, err := os.Open(filepath.Join(dir, "blob-"+strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	http.ServeContent(w, r, "", time.Time{}, f)
}

// server is the registry as the benchmark sees it.
type server struct {
	hosts map[string]string // HOST:PORT of each link
	stop  func()
}

func startServer(ctx context.Context, dir string) *server {
	cmd := exec.CommandContext(ctx, os.Args[0], serveCommand, dir)
	cmd.Stderr = os.Stderr
	stdin, stdout := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	check(cmd.Start())
	s := &server{stop: func() { _ = stdin.Close(); _ = cmd.Wait() }}
	if err := json.NewDecoder(stdout).Decode(&s.hosts); err != nil {
		s.stop()
		check(fmt.Errorf("start the registry: %w", err))
	}
	return s
}

// reference of an image at a link of the registry.
func (s *server) reference(link, tag string) string { return s.hosts[link] + "/bench/image:" + tag }

// stats waits until a link has sent more than above bytes.
func (s *server) stats(ctx context.Context, link string, above int64) (now stats) {
	check(json.Unmarshal(get(ctx, fmt.Sprintf("http://%s/stats?above=%d", s.hosts[link], above)), &now))
	return now
}

// get sends a request on a new connection.
func get(ctx context.Context, url string) []byte {
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, url, nil))
	req.Close = true
	resp := must(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	return must(io.ReadAll(resp.Body))
}
