package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxConfig is the largest image config that is read, in bytes. The largest
// seen have some 100 KiB.
const maxConfig = 16 << 20

// Resolve finds the image for a platform under the first of the references that
// has it: mirrors first, the image's own registry last. An index is resolved to
// the platform's manifest; a manifest that is not in an index is taken as it
// is, whatever its platform, with a warning in the log. A reference without tag
// and digest means the tag "latest".
//
// The manifest and config that it returns have the digests by which they were
// asked for. From then on only digests are asked for, so that every reference
// can be a source: a blob is asked of the repository that was resolved, of the
// ones after it when that one does not give it, and at last of the ones before
// it that were unreachable. A source that failed three
// times in a row, or that did not answer here, is asked after the others for
// 30 s, and for longer each time, up to 5 min; until then Resolve passes it over,
// unless it is the last.
//
// The error joins one [*Error] for each reference that was tried. [Client.Find]
// is the first half, for those who may not need the rest.
func (c *Client) Resolve(ctx context.Context, platform v1.Platform, references ...string) (*Image, error) {
	found, err := c.Find(ctx, platform, references...)
	if err != nil {
		return nil, err
	}
	return found.Image(ctx)
}

// Image asks for the rest of what was found: the platform's manifest, if that was
// in an index, and the config. When the source does not give them, the image is
// looked for under the references after it; so it may be another one than
// Digest said, with another source.
func (f *Found) Image(ctx context.Context) (*Image, error) {
	for {
		image, err := f.load(ctx)
		f.repository.resolved(ctx, err)
		if err == nil {
			f.addOthers(ctx, image)
			return image, nil
		}
		if err := f.failedWith(ctx, err); err != nil {
			return nil, err
		}
		if err := f.find(ctx, f.at+1); err != nil {
			return nil, err
		}
	}
}

func (f *Found) load(ctx context.Context) (*Image, error) {
	r, source := f.repository, f.Source()
	m := f.manifest
	if m == nil {
		var err error
		if m, err = r.listed(ctx, f.listed); err != nil {
			return nil, err
		}
	}
	parsed, err := v1.ParseManifest(bytes.NewReader(m.raw))
	if err != nil {
		return nil, &Error{Op: "read manifest", Source: source, Kind: ErrAnswer, Err: err}
	}
	if !parsed.Config.MediaType.IsConfig() {
		return nil, &Error{Op: "read manifest", Source: source, Kind: ErrUnsupported,
			Err: fmt.Errorf("config media type %q: an artifact, not a container image", parsed.Config.MediaType)}
	}
	config, err := r.readBlob(ctx, parsed.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	image := &Image{source: source, manifest: *m, config: config, repositories: []*repository{r}, sizes: map[v1.Hash]int64{}}
	for _, d := range append(parsed.Layers, parsed.Config) {
		image.sizes[d.Digest] = d.Size
	}
	// Only an index says what a manifest is for before it is fetched, so this one
	// passes; but who asked for another platform should hear of it.
	if have, err := v1.ParseConfigFile(bytes.NewReader(config)); err == nil && have.Platform() != nil && !matches(*have.Platform(), f.platform) {
		r.client.options.Logger.Warn("the image is for another platform", "source", image.source, "platform", have.Platform().String(), "wanted", f.platform.String())
	}
	r.client.options.Logger.Info("resolved", "source", image.source, "digest", m.digest.String())
	return image, nil
}

// addOthers adds further sources: the references after the one that an image was
// resolved at, and last those before it that gave no answer, for they may be back
// before the last layer is read. One that is malformed is no source; it would have
// failed had it been needed.
func (f *Found) addOthers(ctx context.Context, image *Image) {
	others := slices.Clone(f.references[f.at+1:])
	for i, err := range f.failed {
		if errors.Is(err, ErrUnreachable) {
			others = append(others, f.references[i])
		}
	}
	for _, ref := range others {
		if _, r, err := f.client.parse(ref); err == nil {
			image.repositories = append(image.repositories, r)
			if f.client.options.AllSources {
				image.confirm(ctx, r)
			}
		}
	}
}

// sourceErrors are the errors of all sources of one image, in order.
type sourceErrors []error

func (e sourceErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e sourceErrors) Unwrap() []error { return e }

// RetryAfter returns the longest wait that any of the sources asks for: all of
// them are asked again.
func (e sourceErrors) RetryAfter() (wait time.Duration) {
	for _, err := range e {
		var r interface{ RetryAfter() time.Duration }
		if errors.As(err, &r) {
			wait = max(wait, r.RetryAfter())
		}
	}
	return wait
}

// IgnoresRange tells whether any of the sources could give the blob in one
// piece. Without it the first error would speak for all.
func (e sourceErrors) IgnoresRange() bool {
	return slices.ContainsFunc(e, func(err error) bool {
		var r interface{ IgnoresRange() bool }
		return errors.As(err, &r) && r.IgnoresRange()
	})
}

// Temporary tells whether any of the sources may do better later.
func (e sourceErrors) Temporary() bool {
	return slices.ContainsFunc(e, func(err error) bool {
		var t interface{ Temporary() bool }
		return errors.As(err, &t) && t.Temporary()
	})
}
