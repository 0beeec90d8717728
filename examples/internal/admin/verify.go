package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/registryflags"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/registry"
)

// The outcomes of verify.
const (
	intact   = "intact"
	damaged  = "damaged" // also what cannot be read
	repaired = "repaired"
	missing  = "missing"
)

var (
	errMissing = errors.New("there is no such tarball")
	errForeign = errors.New("an archive of another program, such as docker save, which has no digests to verify it by")
)

// A Repair is how tarballs are repaired.
type Repair struct {
	Registry registryflags.Flags
	Options  cache.RepairOptions

	client *registry.Client
}

// Verify reads tarballs, those called names, also without ".tar", or all, and prints each.
// With a repair that is not nil it fetches what is damaged.
func Verify(ctx context.Context, dir store.Store, names []string, repair *Repair, out *cli.Output) error {
	all := len(names) == 0
	names = slices.Clone(names)
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, ".tar") + ".tar"
	}
	progress, end := out.Track("verify")
	results, err := dir.Verify(ctx, names, &cache.VerifyOptions{Progress: progress})
	end()
	if err != nil {
		return err
	}
	for i := range results {
		if errors.Is(context.Cause(ctx), registryflags.ErrRunTime) {
			return fmt.Errorf("%w: %d of %d tarballs were not done, from %s on", context.Cause(ctx), len(results)-i, len(results), cli.Printable(results[i].Name))
		}
		if ctx.Err() != nil {
			return nil
		}
		v := &results[i]
		r, err := newVerified(v, dir.Path()), v.Err
		if errors.Is(err, fs.ErrNotExist) {
			if all { // it was removed meanwhile
				continue
			}
			r.Outcome, err = missing, fmt.Errorf("%w in %s", errMissing, dir.Path())
		}
		if errors.Is(err, tarball.ErrNotTarball) && isForeign(ctx, dir, v.Name) {
			if r.Outcome, err = foreignKind, nil; !all { // of all it is left out, of those that were asked for it is not
				err = errForeign
			}
		}
		if repair != nil && v.Info != nil && errors.Is(err, tarball.ErrDigest) { // it is known, but wrong
			err = repair.fetch(ctx, dir, v, r, out)
			if r.Outcome = repaired; err != nil {
				r.Outcome, err = damaged, fmt.Errorf("%w; it cannot be repaired: %w", v.Err, err)
			}
		}
		if r.Error = cli.ErrorText(err); err != nil {
			r.Advice = out.Advice(err)
			out.Fail(fmt.Errorf("%s: %w", cli.Printable(v.Name), err))
		}
		out.Print(r, r.text())
	}
	return nil
}

// isForeign reports whether a file is what "prune -foreign" removes.
func isForeign(ctx context.Context, dir store.Store, name string) bool {
	entries, err := dir.Entries(ctx, []string{name})
	return err == nil && len(entries) == 1 && entries[0].Foreign
}

// newVerified makes the record of a result, before a repair.
func newVerified(v *cache.VerifyResult, dir string) *verified {
	r := &verified{Name: v.Name, Tarball: store.Join(dir, v.Name), Outcome: intact, Damaged: []string{}, Sources: []report.Source{}}
	if v.Err != nil {
		r.Outcome = damaged
	}
	if v.Info != nil {
		r.Digest, r.BytesTotal = v.Info.Image.Digest().String(), v.Info.Layout.Size()
		r.Bytes = r.BytesTotal
	}
	for _, l := range v.Damaged {
		r.Damaged = append(r.Damaged, l.String())
	}
	return r
}

func (r *verified) text() string {
	line := fmt.Sprintf("%-8s  %s  %s", r.Outcome, cli.Printable(r.Name), cli.Bytes(r.BytesTotal))
	switch {
	case r.Outcome == repaired:
		line += fmt.Sprintf(", %s fetched", cli.Bytes(r.BytesDownloaded))
	case len(r.Damaged) > 0:
		line += fmt.Sprintf(", layers %v", r.Damaged)
	}
	return line
}

// fetch fetches the damaged layers of a tarball, by its digest, first from where it
// came from, and from its own registry. It records what was downloaded.
func (p *Repair) fetch(ctx context.Context, dir store.Store, v *cache.VerifyResult, r *verified, out *cli.Output) (err error) {
	ctx, end := p.Registry.LimitImage(ctx)
	defer end()
	if p.client == nil {
		if p.client, err = p.Registry.Client(out, registry.Options{}); err != nil {
			return err
		}
	}
	img := v.Info.Image
	// By the digest there is no choice; the image's own platform avoids a warning.
	remote, err := p.client.Image(ctx, img.Platform(), v.Info.Sources()...)
	if err != nil {
		return err
	}
	if remote.Digest() != img.Digest() {
		return fmt.Errorf("%s is an index now, with %s: not the image that the tarball has", remote.Source(), remote.Digest())
	}
	options := p.Options
	progress, done := out.Track(v.Name)
	defer done()
	options.Progress = progress
	result, err := dir.Repair(ctx, v, remote, &options)
	r.BytesDownloaded, r.Sources = result.Downloaded, report.Sources(result.Sources)
	report.LogSources(out, v.Name, r.Sources)
	return registryflags.SoFar(err, result)
}

const again = "stock it again with docker-cache, or remove it; what is damaged in a tarball can be fetched with \"verify -repair\""

var advice, adviceOnDamage = registryflags.Advice(
	registryflags.Tip{Kind: registry.ErrNotFound, Text: "the registry does not have the image any more: remove the tarball, or stock a newer one with docker-cache"},
	registryflags.Tip{Kind: cache.ErrReplaced, Text: "it was stocked again meanwhile: verify it again"},
	registryflags.Tip{Kind: errMissing, Text: "\"cache-admin list\" shows what there is"},
	registryflags.Tip{Kind: errForeign, Text: "load-image verifies it when it loads it; docker-cache replaces it when it stocks the image, and \"prune -foreign\" removes it"},
	registryflags.Tip{Kind: cache.ErrInvalidName, Text: "give the name of a file in the directory, without a path"},
	registryflags.Tip{Kind: tarball.ErrDigest}, // where nothing else helps
), registryflags.Advice(registryflags.Tip{Kind: tarball.ErrDigest, Text: again}, registryflags.Tip{Kind: tarball.ErrNotTarball, Text: again})

// Advice says what a person can do about an error of a command.
func Advice(err error) string {
	if text := advice(err); text != "" {
		return text
	}
	return adviceOnDamage(err)
}
