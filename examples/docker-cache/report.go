package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// failed is the third outcome, beside cache.Stocked and cache.Unchanged.
const failed = "failed"

// result is what -json prints for an image. The names are a contract: others
// parse them.
type result struct {
	Image           string  `json:"image"`            // as it was asked for
	Source          string  `json:"source"`           // the reference that it was resolved at, "" if none had it
	Tarball         string  `json:"tarball"`          // path, "" if it did not come to that
	Digest          string  `json:"digest"`           // of the manifest
	Outcome         string  `json:"outcome"`          // stocked, unchanged, failed
	BytesTotal      int64   `json:"bytes_total"`      // of the tarball
	BytesDownloaded int64   `json:"bytes_downloaded"` // of layers
	BytesReused     int64   `json:"bytes_reused"`     // of layers
	Seconds         float64 `json:"seconds"`
	Error           string  `json:"error"` // "" unless failed
}

// report prints what happened, image by image as each ends.
type report struct {
	progress
	stdout, stderr io.Writer
	json           bool
	said           bool // standard error has the reason already, once for all images

	mu       sync.Mutex
	failures int
	unsaid   error // why a line could not be printed
	tarballs []string
}

// say prints to standard output, and remembers when it cannot: a script that
// reads nothing must not take that for "no images".
func (p *report) say(format string, args ...any) {
	if _, err := fmt.Fprintf(p.above(p.stdout), format, args...); err != nil && p.unsaid == nil {
		p.unsaid = err
		fmt.Fprintf(p.stderr, "docker-cache: print the results: %v\n", err)
	}
}

func (p *report) result(r result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Seconds = math.Round(r.Seconds*1000) / 1000
	if err != nil {
		p.failures++
		r.Outcome, r.Error = failed, err.Error()
		if !p.said {
			fmt.Fprintf(p.above(p.stderr), "docker-cache: %q: %v%s\n", r.Image, err, advice(err))
		}
	} else {
		p.tarballs = append(p.tarballs, r.Tarball)
	}
	if p.json {
		// A struct of strings and numbers always encodes.
		line, _ := json.Marshal(r)
		p.say("%s\n", line)
		return
	}
	switch r.Outcome {
	case string(cache.Stocked):
		p.say("stocked    %s  %s from %s in %.1f s\n", filepath.Base(r.Tarball), humanize.IBytes(uint64(r.BytesTotal)), r.Source, r.Seconds)
	case string(cache.Unchanged):
		p.say("unchanged  %s  %s, same digest at %s, in %.1f s\n", filepath.Base(r.Tarball), humanize.IBytes(uint64(r.BytesTotal)), r.Source, r.Seconds)
	default:
		p.say("failed     %q after %.1f s\n", r.Image, r.Seconds)
	}
}

// advice says what a person can do about an error, where that is known.
func advice(err error) string {
	var tips []string
	for _, a := range []struct {
		kind error
		tip  string
	}{
		{registry.ErrCredentials, "mend Docker's config file (DOCKER_CONFIG, ~/.docker/config.json) or the helper that it names"},
		{http.ErrSchemeMismatch, "if the registry speaks plain HTTP and the network in between can be trusted, allow it with -plain-http HOST:PORT"},
		{registry.ErrDisagree, "if the mirror is stale push the image there again; if it should never differ find out who pushed to it"},
		{registry.ErrDenied, "log in to the registry (docker login), or check what the credential may read"},
		{registry.ErrNotFound, "check the reference, and whether the build has pushed it there"},
		{registry.ErrUnreachable, "check the registry's name and the network, or try again later"},
		{registry.ErrAnswer, "check that the host is a registry and that no proxy changes its answers"},
		{registry.ErrPlatform, "ask for one of these with -platform"},
		{cache.ErrBlobDigest, "a registry holds damaged bytes: push the image there again, or leave that mirror out"},
		{syscall.ENOSPC, "make room in the directory"},
	} {
		if errors.As(err, new(*awsauth.Error)) && a.kind == registry.ErrCredentials {
			continue // it says itself what to do
		}
		if errors.Is(err, a.kind) {
			tips = append(tips, a.tip)
		}
	}
	if len(tips) == 0 {
		return ""
	}
	return "\n  What to do: " + strings.Join(tips, "; ")
}

// howToLoad ends the sample.
func (p *report) howToLoad(dir string) {
	out := p.stdout
	if p.json {
		out = p.stderr // standard output is for the objects alone
	}
	fmt.Fprintf(out, "\nThe tarballs are in %s. Load one into an engine with one of\n", dir)
	fmt.Fprintf(out, "  docker load -i %s\n", p.tarballs[0])
	fmt.Fprintf(out, "  podman load -i %s\n", p.tarballs[0])
	fmt.Fprintf(out, "They are yours to keep or to remove:\n  rm %s\n", strings.Join(p.tarballs, " "))
}
