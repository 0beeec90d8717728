// Package admin has the commands of cache-admin: what they do with a directory, and
// print of it.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/store"
)

// table writes aligned columns: rows of cells with a tab between.
func table(write func(row func(format string, a ...any))) string {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	write(func(format string, a ...any) { fmt.Fprintf(t, format+"\n", a...) })
	_ = t.Flush() // a Builder never fails
	return text.String()
}

// List prints what is in a directory.
func List(ctx context.Context, dir store.Store, out *cli.Output) error {
	entries, err := dir.List(ctx)
	if err != nil {
		return err
	}
	tarballs, foreign, allocated, othersAllocated := 0, 0, int64(0), int64(0)
	text := table(func(row func(string, ...any)) {
		if len(entries) > 0 {
			row("NAME\tSIZE\tSHARED\tLAST USED\tRUN\tPLATFORM\tDIGEST\tREFERENCE")
		}
		for _, e := range entries {
			r := listed{
				Name: e.Name, Tarball: store.Join(dir.Path(), e.Name), RunID: e.Run.ID, Run: e.Run.ID, RunAttempt: e.Run.Attempt,
				BytesTotal: e.Size, Bytes: e.Size, BytesAllocated: e.Allocated, BytesShared: e.Shared,
				LastUsed: cli.Stamp(e.LastUsed), Error: cli.ErrorText(e.Err), Advice: out.Advice(e.Err),
			}
			name, used, run := cli.Printable(e.Name), humanize.Time(e.LastUsed), "-"
			if r.RunID != 0 {
				run = fmt.Sprintf("%d/%d", r.RunID, r.RunAttempt)
			}
			if t := e.Info; t != nil {
				r.Kind, r.Platform = ownKind, t.Image.Platform().String()
				r.Digest, r.Reference, r.Source, r.Branch = t.Image.Digest().String(), t.Image.Reference(), t.Provenance.Source, t.Provenance.Branch
				tarballs++
				allocated += e.Allocated
				out.Print(r, "")
				row("%s\t%s\t%s\t%s\t%s\t%s\t%.19s\t%s", name, cli.Bytes(e.Size), cli.Bytes(e.Shared), used, run, cli.Printable(r.Platform), r.Digest, r.Reference)
				continue
			}
			r.Kind = unreadableKind
			why := cli.Printable(r.Error)
			if e.Foreign {
				foreign++
				references := savedReferences(r.Tarball)
				r.Kind, r.Reference = foreignKind, strings.Join(references[:min(len(references), 1)], "")
				why = "archive of another program, such as docker save, with " + cli.Printable(cmp.Or(strings.Join(references, " "), "no name"))
			}
			othersAllocated += e.Allocated
			out.Print(r, "")
			row("%s\t%s\t\t%s\t\t\t\t%s", name, cli.Bytes(e.Size), used, why)
		}
	})
	where := "disk"
	if store.IsBucket(dir.Path()) {
		where = "bucket"
	}
	text += fmt.Sprintf("%s, %s of the %s", english.Plural(tarballs, "tarball", ""), cli.Bytes(allocated), where)
	if others := len(entries) - tarballs; others > 0 {
		text += fmt.Sprintf("; %s that cannot be read as a tarball of this cache, %s of the %s", english.Plural(others, "file", ""), cli.Bytes(othersAllocated), where)
	}
	if foreign > 0 {
		text += fmt.Sprintf(". Those of other programs, %d, go with \"cache-admin prune -foreign\"", foreign)
	}
	out.Print(nil, text)
	return nil
}

// The outcomes of prune, also of a dry run.
const (
	removed = "removed"
	kept    = "kept"
)

// Prune removes what is beyond limits, and prints it, what stays all the same, and a
// summary, which with -json is on standard error. Templates of engine-root in a directory count as
// tarballs do.
func Prune(ctx context.Context, dir store.Store, limits *cache.PruneOptions, out *cli.Output) error {
	what, several := "tarball", ""
	if !store.IsBucket(dir.Path()) {
		roots, err := dataroot.Open(dir.Path(), nil)
		if err != nil {
			return err
		}
		if !limits.DryRun {
			roots.Sweep()
		}
		if all, err := roots.List(); err == nil && len(all) > 0 {
			what, several = "tarball or template", "tarballs or templates"
		}
		limits.Others = roots
	}
	result, err := dir.Prune(ctx, limits)
	done := "removed"
	if limits.DryRun {
		done = "would remove"
	}
	var swept int64
	out.Print(nil, table(func(row func(string, ...any)) {
		for _, l := range result.Swept {
			swept += l.Bytes
			out.Print(pruned{
				Name: l.Name, Kind: string(l.Kind), Outcome: removed, Action: removed, DryRun: limits.DryRun, Why: "leftover",
				BytesAllocated: l.Bytes, Bytes: l.Bytes,
			}, "")
			row("%s\t%s\t%s\tleftover", done, cli.Printable(l.Name), cli.Bytes(l.Bytes))
		}
		for _, p := range slices.Concat(result.Removed, result.Kept) {
			e := p.Entry
			r := pruned{
				Name: e.Name, Kind: ownKind, Outcome: removed, Action: removed, DryRun: limits.DryRun, Why: string(p.Why), Kept: string(p.Kept),
				BytesAllocated: e.Allocated, Bytes: e.Allocated, LastUsed: cli.Stamp(e.LastUsed),
			}
			switch {
			case e.Foreign:
				r.Kind = foreignKind
			case e.Info == nil:
				r.Kind = templateKind
			}
			action, why := done, r.Why
			if p.Kept != "" {
				r.Outcome, r.Action, action, why = kept, kept, kept, why+", but "+r.Kept
			}
			out.Print(r, "")
			row("%s\t%s\t%s\t%s\tlast used %s", action, cli.Printable(r.Name), cli.Bytes(r.BytesAllocated), why, humanize.Time(e.LastUsed))
		}
	}))
	out.Remark(fmt.Sprintf("%s %s of %s and %s of %s; %s of %s stay", done, english.Plural(len(result.Removed), what, several), cli.Bytes(result.Freed),
		english.Plural(len(result.Swept), "leftover", ""), cli.Bytes(swept), english.Plural(result.Left, what, several), cli.Bytes(result.LeftBytes)))
	return errors.Join(err, beyond(limits, result, english.Plural(result.Left, what, several)))
}

// beyond returns an error if the directory is beyond a limit after all, and what can be
// done about it; left is what stays. That an old tarball stays as it is the newest is no error.
func beyond(limits *cache.PruneOptions, result *cache.PruneResult, left string) error {
	var limit string
	switch {
	case result.OverCount > 0:
		limit = fmt.Sprintf("-count %d", limits.Count)
	case result.OverBytes > 0:
		limit = "-bytes " + cli.Bytes(limits.MaxBytes)
	default:
		return nil
	}
	kept := map[cache.KeepReason]int{}
	for _, p := range result.Kept {
		if p.Why != cache.PruneForeign {
			kept[p.Kept]++
		}
	}
	var why []string
	if n := kept[cache.KeepNewest]; n > 0 {
		why = append(why, fmt.Sprintf("%d as the newest of an image (-newest lets them go)", n))
	}
	if n := kept[cache.KeepInUse]; n > 0 {
		why = append(why, fmt.Sprintf("%d in use (prune again when they are not)", n))
	}
	return fmt.Errorf("%s is not reached: %s of %s stay: %s", limit, left, cli.Bytes(result.LeftBytes),
		cmp.Or(strings.Join(why, ", "), "they could not be removed"))
}

// Info prints what is in a tarball: file is a path or an address, or if there is none such, a
// name in the directory, each also without ".tar".
func Info(ctx context.Context, dir, file string, s3 *store.S3, out *cli.Output) error {
	candidates := []string{file, file + ".tar"}
	if filepath.Base(file) == file {
		candidates = append(candidates, store.Join(dir, file), store.Join(dir, file+".tar"))
	}
	var t *tarball.Tarball
	err := fs.ErrNotExist
	for i := 0; i < len(candidates) && errors.Is(err, fs.ErrNotExist); i++ {
		t, err = open(ctx, candidates[i], s3)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(candidates) > 2:
		return fmt.Errorf("%s is neither here nor in %s: %w", file, dir, fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", file, fs.ErrNotExist)
	case err != nil:
		return err
	}
	defer t.Close()
	d := &described{
		Tarball: t.Name(), File: t.Name(), Digest: t.Image.Digest().String(), Reference: t.Image.Reference(), Source: t.Provenance.Source, Branch: t.Provenance.Branch,
		RunID: t.Provenance.Run.ID, Run: t.Provenance.Run.ID, RunAttempt: t.Provenance.Run.Attempt, Config: t.Image.ConfigDigest().String(),
		BytesTotal: t.Layout.Size(), Bytes: t.Layout.Size(), Layers: []describedLayer{},
	}
	d.Platform = t.Image.Platform().String()
	var config struct{ Created time.Time }
	if json.Unmarshal(t.Image.Config(), &config) == nil { // any field may be malformed but those that an image needs
		d.Created = cli.Stamp(config.Created)
	}
	types := map[v1.Hash]string{}
	for _, l := range t.Image.Layers() {
		types[l.Digest] = string(l.MediaType)
	}
	for _, s := range t.Layout.Layers() {
		d.Layers = append(d.Layers, describedLayer{Digest: s.Blob.String(), MediaType: types[s.Blob], Bytes: s.Length, Offset: s.Offset})
	}
	out.Print(d, d.text())
	return nil
}

// open opens a tarball, of which the path need not be in a directory of tarballs.
func open(ctx context.Context, path string, s3 *store.S3) (*tarball.Tarball, error) {
	if !store.IsBucket(path) {
		return tarball.Open(path)
	}
	at, name := store.Split(path)
	bucket, err := store.Open(ctx, at, nil, s3)
	if err != nil {
		return nil, err
	}
	return bucket.Get(ctx, strings.TrimSuffix(name, ".tar")+".tar") // no tarball is called otherwise
}

func (d *described) text() string {
	run := ""
	if d.RunID != 0 {
		run = fmt.Sprintf("%d, attempt %d", d.RunID, d.RunAttempt)
	}
	return table(func(row func(string, ...any)) {
		for _, r := range [][2]string{
			{"file", d.Tarball}, {"size", fmt.Sprintf("%s (%d bytes)", cli.Bytes(d.BytesTotal), d.BytesTotal)}, {"reference", d.Reference}, {"digest", d.Digest}, {"config", d.Config},
			{"platform", d.Platform}, {"created", d.Created}, {"source", d.Source}, {"branch", d.Branch}, {"run", run},
		} {
			if r[1] != "" {
				row("%s\t%s", r[0], cli.Printable(r[1]))
			}
		}
	}) + table(func(row func(string, ...any)) {
		row("\nLAYER\tSIZE\tOFFSET\tMEDIA TYPE")
		for _, l := range d.Layers {
			row("%s\t%s\t%d\t%s", l.Digest, cli.Bytes(l.Bytes), l.Offset, l.MediaType)
		}
	})
}
