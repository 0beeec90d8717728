package main

import (
	stdbytes "bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"text/tabwriter"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// info prints what is in a tarball: FILE is a path, or if there is none such, a
// name in the directory.
func info(o *options, out *output) {
	file := o.arguments[0]
	t, err := cache.ReadTarball(file)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(file) == file {
		t, err = cache.ReadTarball(filepath.Join(o.dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s is neither here nor in %s: %w", file, o.dir, fs.ErrNotExist)
		}
	}
	if err != nil {
		out.fail(err)
		return
	}
	d := describe(t)
	if out.json {
		out.print(d)
		return
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", key, printable(value))
		}
	}
	row("file", d.File)
	row("size", fmt.Sprintf("%s (%d bytes)", bytes(d.Bytes), d.Bytes))
	row("reference", d.Reference)
	row("digest", d.Digest)
	row("config", d.Config)
	row("platform", d.Platform)
	row("created", d.Created)
	row("source", d.Source)
	row("branch", d.Branch)
	if d.Run != 0 {
		row("run", fmt.Sprintf("%d, attempt %d", d.Run, d.RunAttempt))
	}
	_ = table.Flush() // out remembers
	layers := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(layers, "\nLAYER\tSIZE\tOFFSET\tMEDIA TYPE\n")
	for _, l := range d.Layers {
		fmt.Fprintf(layers, "%s\t%s\t%d\t%s\n", l.Digest, bytes(l.Bytes), l.Offset, l.MediaType)
	}
	_ = layers.Flush()
}

func describe(t *cache.Tarball) described {
	d := described{
		File: t.Path, Digest: t.Image.Digest().String(), Reference: t.Image.Reference(), Source: t.Provenance.Source, Branch: t.Provenance.Branch,
		Run: t.Provenance.Run.ID, RunAttempt: t.Provenance.Run.Attempt, Bytes: t.Layout.Size(), Layers: []describedLayer{},
	}
	// ReadTarball has parsed both already.
	if m, err := v1.ParseManifest(stdbytes.NewReader(t.Image.Manifest())); err == nil {
		d.Config = m.Config.Digest.String()
	}
	if c, err := v1.ParseConfigFile(stdbytes.NewReader(t.Image.Config())); err == nil {
		d.Created = stamp(c.Created.Time)
		if p := c.Platform(); p != nil {
			d.Platform = p.String()
		}
	}
	types := map[v1.Hash]string{}
	for _, l := range t.Image.Layers() {
		types[l.Digest] = string(l.MediaType)
	}
	for _, s := range t.Layout.Segments() {
		if s.IsBlob() {
			d.Layers = append(d.Layers, describedLayer{Digest: s.Blob.String(), MediaType: types[s.Blob], Bytes: s.Length, Offset: s.Offset})
		}
	}
	return d
}
