//go:build linux

package main

import (
	"bufio"
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

	// What ECR gives to one connection, some 25 MB/s, from the same region.
	limitedRate    = 25_000_000 // bytes per second and connection
	limitedLatency = 20 * time.Millisecond
)

// The links: how the registry is reached.
const (
	straight = "straight"
	limited  = "limited"
)

// hosts is what the server says when it is ready: HOST:PORT of each link.
type hosts map[string]string

// serve is the registry, a process of its own: what it costs is counted for
// no program. It is the least that all programs pull from, and gives files to the
// socket by sendfile. It ends when its standard input does.
func serve(dir string, stdin io.Reader, stdout io.Writer) error {
	ready := hosts{}
	links := map[string]*registrytest.Throttle{
		straight: {},
		limited:  {BytesPerSecond: limitedRate, Latency: limitedLatency},
	}
	for _, p := range pairs {
		links[p.name+" mirror"], links[p.name+" own"] = p.mirror(), p.own()
	}
	counts := map[string]*atomic.Int64{}
	for _, kind := range requestKinds {
		counts[kind] = &atomic.Int64{}
	}
	for link, t := range links {
		var err error
		if t.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		ready[link] = t.Addr().String()
		mux := http.NewServeMux()
		mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
			for _, kind := range requestKinds {
				if strings.Contains(r.URL.Path, kind) {
					counts[kind].Add(1)
				}
			}
			serveFile(w, r, dir)
		})
		mux.HandleFunc("/counts", func(w http.ResponseWriter, _ *http.Request) {
			now := map[string]int64{}
			for kind, n := range counts {
				now[kind] = n.Load()
			}
			_ = json.NewEncoder(w).Encode(now) // who asks sees that it is cut
		})
		mux.HandleFunc("/written", func(w http.ResponseWriter, r *http.Request) { awaitWritten(w, r, t) })
		go func() { _ = http.Serve(t, mux) }() // ends with the process
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, stdin)
	return err
}

// requestKinds are what requests are counted by; the last is in all of them.
var requestKinds = []string{"/manifests/", "/blobs/", "/v2/"}

// counts asks how many requests of each kind there were so far.
func (s *server) counts(ctx context.Context) (map[string]int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.hosts[straight]+"/counts", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	now := map[string]int64{}
	return now, json.NewDecoder(resp.Body).Decode(&now)
}

// serveFile answers for /v2/, manifests and blobs.
func serveFile(w http.ResponseWriter, r *http.Request, dir string) {
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if name == "" {
		return // GET /v2/: a registry, and no login
	}
	file := "tag-" + name
	if hex, ok := strings.CutPrefix(name, "sha256:"); ok {
		file = "blob-" + hex
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if strings.Contains(r.URL.Path, "/manifests/") {
		blob, err := filepath.EvalSymlinks(filepath.Join(dir, file))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.TrimPrefix(filepath.Base(blob), "blob-"))
	}
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	http.ServeContent(w, r, "", time.Time{}, f)
}

// awaitWritten answers how many bytes the link has given, once it is more than
// the query's "above".
func awaitWritten(w http.ResponseWriter, r *http.Request, t *registrytest.Throttle) {
	above, err := strconv.ParseInt(r.URL.Query().Get("above"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for t.Written() <= above && r.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	fmt.Fprint(w, t.Written())
}

// server is the registry as the benchmark sees it.
type server struct {
	hosts hosts
	stop  func()
}

func startServer(ctx context.Context, dir string) (*server, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], serveCommand, dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{stop: func() { _ = stdin.Close(); _ = cmd.Wait() }}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.hosts)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	return s, nil
}

// written waits until the limited link has given more than above bytes, and
// returns how many.
func (s *server) written(ctx context.Context, above int64) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/written?above=%d", s.hosts[limited], above), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(body), 10, 64)
}
