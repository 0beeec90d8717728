package main

import (
	"context"
	"fmt"

	"github.com/dockercache/dockercache/cache"
)

// The outcomes of verify.
const (
	intact   = "intact"
	damaged  = "damaged" // also what cannot be read
	repaired = "repaired"
)

// verify reads tarballs, prints each, and repairs what is damaged if it shall.
func verify(ctx context.Context, dir *cache.Dir, o *options, out *output) {
	progress := newProgress(out.raw, o.quiet)
	results, err := dir.Verify(ctx, o.arguments, &cache.VerifyOptions{Progress: progress.tell})
	progress.stop()
	if err != nil {
		out.fail(err)
		return
	}
	var from *repairer
	for _, v := range results {
		if ctx.Err() != nil {
			return
		}
		r := verified{Name: v.Name, Outcome: intact, Damaged: []string{}}
		if v.Tarball != nil {
			r.Digest, r.Bytes = v.Tarball.Image.Digest().String(), v.Tarball.Layout.Size()
		}
		for _, l := range v.Damaged {
			r.Damaged = append(r.Damaged, l.String())
		}
		err := v.Err
		if err != nil {
			r.Outcome = damaged
		}
		if err != nil && o.repair && isDamage(err) {
			if from == nil {
				from, err = newRepairer(o, out)
			}
			var put *cache.Result
			if from != nil {
				put, err = from.repair(ctx, dir, v.Tarball)
			}
			if put != nil {
				r.BytesDownloaded = put.Downloaded
			}
			if err == nil {
				r.Outcome = repaired
			} else {
				err = fmt.Errorf("%w; it cannot be repaired: %w", v.Err, err)
			}
		}
		r.Error = text(err)
		if err != nil {
			out.fail(fmt.Errorf("%s: %w", printable(v.Name), err))
		}
		switch {
		case out.json:
			out.print(r)
		case r.Outcome == repaired:
			fmt.Fprintf(out, "%-8s  %s  %s, %s fetched\n", r.Outcome, printable(r.Name), bytes(r.Bytes), bytes(r.BytesDownloaded))
		case len(r.Damaged) > 0:
			fmt.Fprintf(out, "%-8s  %s  %s, layers %v\n", r.Outcome, printable(r.Name), bytes(r.Bytes), r.Damaged)
		default:
			fmt.Fprintf(out, "%-8s  %s  %s\n", r.Outcome, printable(r.Name), bytes(r.Bytes))
		}
	}
}
