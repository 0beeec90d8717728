package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Found is an image of which is known where it is and which it is, and no more
// than one manifest was asked for. It is for one goroutine.
type Found struct {
	client     *Client
	platform   v1.Platform
	references []string
	failed     sourceErrors // of the references before the one at

	at         int // which reference has it
	named      reference.Named
	repository *repository
	manifest   *manifest     // nil while it is only listed in an index
	listed     v1.Descriptor // in the index
}

// Source returns the complete reference that the image was found at.
func (f *Found) Source() string { return f.named.String() }

// Digest returns the digest of the platform's manifest, which identifies the
// image. It is what the registry says: its bytes are proven, or those of the
// index that lists it.
func (f *Found) Digest() v1.Hash {
	if f.manifest != nil {
		return f.manifest.digest
	}
	return f.listed.Digest
}

// Find is the first half of [Client.Resolve]: it asks for what the reference
// names, an index or a manifest, and for nothing else: one request, after those of
// the login. [Options.MirrorsMustAgree] is obeyed here, for which
// the last reference is asked too.
//
// Whoever has the image with this digest already needs no more. Otherwise
// [Found.Image] goes on. The errors are those of Resolve.
func (c *Client) Find(ctx context.Context, platform v1.Platform, references ...string) (*Found, error) {
	if len(references) == 0 {
		return nil, errors.New("resolve: no reference was given")
	}
	f := &Found{client: c, platform: platform, references: references}
	if err := f.find(ctx, 0); err != nil {
		return nil, err
	}
	return f, nil
}

// find looks under the references from a place on.
func (f *Found) find(ctx context.Context, from int) error {
	for f.at = from; f.at < len(f.references); f.at++ {
		err := f.locate(ctx, f.references[f.at], f.at < len(f.references)-1)
		if err == nil {
			return f.mustAgree(ctx)
		}
		if err := f.failedWith(ctx, err); err != nil {
			return err
		}
	}
	return f.failed
}

// failedWith notes why the present reference does not have the image. The error
// that it returns ends the search.
func (f *Found) failedWith(ctx context.Context, err error) error {
	ref := f.references[f.at]
	err = newError(ctx, "resolve", ref, err)
	if ctx.Err() != nil {
		return err
	}
	level := slog.LevelWarn
	if errors.Is(err, ErrNotFound) || f.at == len(f.references)-1 {
		level = slog.LevelInfo // nothing is wrong with the source, or the error says it
	}
	f.client.options.Logger.Log(ctx, level, "source does not have the image", "source", ref, "error", err)
	f.failed = append(f.failed, err)
	return nil
}

// locate asks for what a reference names. When there is an alternative, a registry
// that was down a moment ago is not waited for again.
func (f *Found) locate(ctx context.Context, ref string, alternative bool) (err error) {
	if f.named, f.repository, err = f.client.parse(ref); err != nil {
		return err
	}
	r := f.repository
	if err := r.health.asideFor(); err != nil && alternative {
		return &asideError{err}
	}
	defer func() { r.resolved(ctx, err) }()
	f.manifest, f.listed = nil, v1.Descriptor{}
	m, err := r.manifest(ctx, tagOrDigest(f.named))
	if err != nil {
		return err
	}
	if !m.mediaType.IsIndex() {
		f.manifest = m
		return nil
	}
	parsed, err := v1.ParseIndexManifest(bytes.NewReader(m.raw))
	if err != nil {
		return &Error{Op: "read index", Source: f.Source(), Kind: ErrAnswer, Err: err}
	}
	d, err := choose(parsed, f.platform)
	if err != nil {
		return &Error{Op: "resolve", Source: f.Source(), Kind: ErrPlatform, Err: err}
	}
	f.listed = d
	return nil
}

// listed fetches a manifest that an index lists.
func (r *repository) listed(ctx context.Context, d v1.Descriptor) (*manifest, error) {
	m, err := r.manifest(ctx, d.Digest.String())
	if err != nil {
		return nil, err
	}
	if int64(len(m.raw)) != d.Size || m.mediaType != d.MediaType {
		return nil, &Error{Op: "read manifest", Source: r.name + "@" + d.Digest.String(), Kind: ErrAnswer,
			Err: fmt.Errorf("the index declares %d bytes of type %q, there are %d of type %q", d.Size, d.MediaType, len(m.raw), m.mediaType)}
	}
	return m, nil
}

// mustAgree fails unless the image's own registry has the same image, if that is
// required.
func (f *Found) mustAgree(ctx context.Context) error {
	last := len(f.references) - 1
	if !f.client.options.MirrorsMustAgree || f.at == last {
		return nil
	}
	own := f.references[last]
	op := "compare " + f.Source() + " with"
	there := &Found{client: f.client, platform: f.platform}
	if err := there.locate(ctx, own, false); err != nil {
		err = newError(ctx, "resolve", own, err)
		if ctx.Err() != nil {
			return err
		}
		return &Error{Op: op, Source: own, Kind: ErrDisagree, Err: err}
	}
	if there.Digest() != f.Digest() {
		return &Error{Op: op, Source: own, Kind: ErrDisagree,
			Err: fmt.Errorf("the mirror has %s, its own registry %s", f.Digest(), there.Digest())}
	}
	return nil
}

func tagOrDigest(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag() // TagNameOnly saw to it
}
