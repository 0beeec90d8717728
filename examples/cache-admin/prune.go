package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"github.com/dockercache/dockercache/cache"
)

// leftoverWhy is why a leftover goes.
const leftoverWhy = "leftover"

// prune removes what is beyond the limits, and prints each and a summary, which
// with -json is on standard error.
func prune(ctx context.Context, dir *cache.Dir, o *options, out *output) {
	r, err := dir.Prune(ctx, o.limits())
	var records []pruned
	for _, l := range r.Swept {
		records = append(records, pruned{Name: l.Name, Kind: string(l.Kind), Action: "removed", Why: leftoverWhy, Bytes: l.Bytes})
	}
	for _, p := range append(r.Removed, r.Kept...) {
		record := pruned{Name: p.Entry.Name, Kind: "tarball", Action: "removed", Why: string(p.Why), Kept: string(p.Kept), Bytes: p.Entry.Allocated, LastUsed: stamp(p.Entry.LastUsed)}
		if p.Kept != "" {
			record.Action = "kept"
		}
		records = append(records, record)
	}
	done := "removed"
	if o.dryRun {
		done = "would remove"
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, record := range records {
		record.DryRun = o.dryRun
		if out.json {
			out.print(record)
			continue
		}
		action, why := done, record.Why
		if record.Action == "kept" {
			action, why = "kept", why+", but "+record.Kept
		}
		used := ""
		if i >= len(r.Swept) {
			used = "\tlast used " + humanize.Time(append(r.Removed, r.Kept...)[i-len(r.Swept)].Entry.LastUsed)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s%s\n", action, printable(record.Name), bytes(record.Bytes), why, used)
	}
	_ = table.Flush() // out remembers
	var swept int64
	for _, l := range r.Swept {
		swept += l.Bytes
	}
	summary := fmt.Sprintf("%s %s of %s and %s of %s; %s of %s stay\n", done, english.Plural(len(r.Removed), "tarball", ""), bytes(r.Freed),
		english.Plural(len(r.Swept), "leftover", ""), bytes(swept), english.Plural(r.Left, "tarball", ""), bytes(r.LeftBytes))
	if out.json {
		fmt.Fprint(out.stderr, summary)
	} else {
		fmt.Fprint(out, summary)
	}
	if err != nil {
		out.fail(err)
	}
}
