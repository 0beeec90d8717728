package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"github.com/dockercache/dockercache/cache"
)

// listTarballs prints what is in the directory.
func listTarballs(ctx context.Context, dir *cache.Dir, out *output) {
	entries, err := dir.List(ctx)
	if err != nil {
		out.fail(err)
		return
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !out.json && len(entries) > 0 {
		fmt.Fprintln(table, "NAME\tSIZE\tSHARED\tLAST USED\tRUN\tDIGEST\tREFERENCE")
	}
	var allocated int64
	for _, e := range entries {
		allocated += e.Allocated
		r := record(e)
		switch {
		case out.json:
			out.print(r)
		case e.Err != nil:
			fmt.Fprintf(table, "%s\t%s\t\t%s\t\t\t%s\n", printable(e.Name), bytes(e.Size), humanize.Time(e.LastUsed), printable(r.Error))
		default:
			run := "-"
			if r.Run != 0 {
				run = fmt.Sprintf("%d/%d", r.Run, r.RunAttempt)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.19s\t%s\n", printable(e.Name), bytes(e.Size), bytes(e.Shared), humanize.Time(e.LastUsed), run, r.Digest, r.Reference)
		}
	}
	if !out.json {
		_ = table.Flush() // out remembers
		fmt.Fprintf(out, "%s, %s of the disk\n", english.Plural(len(entries), "tarball", ""), bytes(allocated))
	}
}

func record(e cache.Entry) listed {
	r := listed{
		Name: e.Name, Run: e.Run.ID, RunAttempt: e.Run.Attempt, Bytes: e.Size, BytesAllocated: e.Allocated, BytesShared: e.Shared,
		LastUsed: stamp(e.LastUsed), Error: text(e.Err),
	}
	if t := e.Tarball; t != nil {
		r.Digest, r.Reference, r.Source, r.Branch = t.Image.Digest().String(), t.Image.Reference(), t.Provenance.Source, t.Provenance.Branch
	}
	return r
}
