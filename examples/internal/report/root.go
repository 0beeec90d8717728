package report

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// Outcomes of engine-root beside those of the package dataroot.
const (
	Listed   = "listed"
	Verified = "verified"
	Cloned   = "cloned"
	Mounted  = "mounted"

	Removed     = "removed"
	WouldRemove = "would-remove"
)

// Root is what engine-root prints for a template or a clone.
type Root struct {
	Template       string      `json:"template"` // path, "" for a clone that was found mounted
	Mount          string      `json:"mount"`    // where a clone is mounted, "" for a template
	Outcome        string      `json:"outcome"`  // built, refreshed, unchanged, listed, verified, removed, would-remove, cloned, mounted
	Engine         string      `json:"engine"`   // kind
	Version        string      `json:"version"`  // of the engine
	Driver         string      `json:"driver"`   // storage driver or snapshotter
	Made           string      `json:"made"`     // when the template was
	BytesAllocated int64       `json:"bytes_allocated"`
	Way            string      `json:"way"`          // in which a clone was made: reflink, copy
	BytesCopied    int64       `json:"bytes_copied"` // for a clone
	Seconds        float64     `json:"seconds"`
	Images         []RootImage `json:"images"`
}

// RootImage is an image in a data root.
type RootImage struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Tarball   string `json:"tarball"`
}

// NewRoot makes the record of a template in a directory.
func NewRoot(dir string, t *dataroot.Template) *Root {
	r := &Root{BytesAllocated: t.Allocated, Images: []RootImage{}}
	if t.Name != "" {
		r.Template = filepath.Join(dir, t.Name)
	}
	if t.Record != nil {
		e := t.Record.Engine
		r.Engine, r.Version, r.Driver, r.Made = string(e.Kind), e.Version, e.Driver, cli.Stamp(t.Record.Made)
		for _, i := range t.Record.Images {
			r.Images = append(r.Images, RootImage{i.Reference, i.Digest.String(), i.Tarball})
		}
	}
	return r
}

// NewClone makes the record of a clone of a template in a directory.
func NewClone(dir string, c *dataroot.Clone) *Root {
	r := NewRoot(dir, &c.Template)
	r.Mount, r.Way, r.BytesCopied, r.Seconds, r.Outcome = c.At, string(c.Way), c.Copied, c.Took.Seconds(), Cloned
	if c.Way == "" {
		r.Outcome = Mounted
	}
	return r
}

// Record is what the log of a directory has of a clone for an image, which was begun at a time; err
// is why there is none.
func (r *Root) Record(image string, begun time.Time, phases *timing.Recorder, err error) history.Record {
	h := history.Record{
		Kind: history.Clone, Outcome: r.Outcome, Image: image, Tarball: name(r.Template), Engine: r.Engine,
		BytesTotal: r.BytesAllocated, Seconds: seconds(begun), Phases: end(phases),
	}
	if len(r.Images) == 1 {
		h.Digest = r.Images[0].Digest
	}
	if err != nil {
		if h.Outcome, h.Error = Failed, err.Error(); errors.Is(err, dataroot.ErrNoTemplate) {
			h.Outcome = Missing
		}
	}
	return h
}

// Text is the record for people.
func (r *Root) Text() string {
	var of []string
	for _, i := range r.Images {
		of = append(of, i.Reference)
	}
	images := strings.Join(of, ", ")
	name := filepath.Base(r.Template)
	switch r.Outcome {
	case Cloned:
		how := "by " + r.Way
		if r.BytesCopied > 0 {
			how = "by copying " + cli.Bytes(r.BytesCopied)
		}
		return fmt.Sprintf("%-9s  %s  of %s in %.2f s, %s", r.Outcome, r.Mount, name, r.Seconds, how)
	case Mounted:
		return fmt.Sprintf("%-9s  %s  %s for %s %s", r.Outcome, r.Mount, images, r.Engine, r.Version)
	}
	text := fmt.Sprintf("%-9s  %s  %s on the disk", r.Outcome, name, cli.Bytes(r.BytesAllocated))
	if images != "" {
		text += ": " + images
	}
	if r.Seconds > 0 {
		text += fmt.Sprintf(", in %.1f s", r.Seconds)
	}
	return text
}
