package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
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
// can be a source: a blob is asked of the repository that was resolved, and of
// the ones after it when that one does not give it. A source that failed three
// times in a row, or that did not answer here, is asked after the others for
// 30 s, and for longer each time, up to 5 min; until then Resolve passes it over,
// unless it is the last.
//
// The error joins one [*Error] for each reference that was tried.
func (c *Client) Resolve(ctx context.Context, platform v1.Platform, references ...string) (*Image, error) {
	if len(references) == 0 {
		return nil, errors.New("resolve: no reference was given")
	}
	var failed sourceErrors
	for i, ref := range references {
		image, err := c.resolve(ctx, platform, ref, i < len(references)-1)
		if err == nil {
			return c.withOthers(ctx, platform, image, references[i+1:])
		}
		err = newError(ctx, "resolve", ref, err)
		if ctx.Err() != nil {
			return nil, err
		}
		level := slog.LevelWarn
		if errors.Is(err, ErrNotFound) || i == len(references)-1 {
			level = slog.LevelInfo // nothing is wrong with the source, or the error says it
		}
		c.options.Logger.Log(ctx, level, "source does not have the image", "source", ref, "error", err)
		failed = append(failed, err)
	}
	return nil, failed
}

// withOthers adds the references after the one that an image was resolved at,
// as further sources. One that is malformed is no source; it would have failed
// had it been needed.
func (c *Client) withOthers(ctx context.Context, platform v1.Platform, image *Image, references []string) (*Image, error) {
	for i, ref := range references {
		_, r, err := c.parse(ref)
		if own := i == len(references)-1; own && c.options.MirrorsMustAgree {
			if err := c.mustAgree(ctx, platform, image, ref); err != nil {
				return nil, err
			}
		}
		if err != nil {
			continue
		}
		image.repositories = append(image.repositories, r)
		if c.options.AllSources {
			image.confirm(ctx, r)
		}
	}
	return image, nil
}

// mustAgree fails unless the image's own registry has the same image.
func (c *Client) mustAgree(ctx context.Context, platform v1.Platform, image *Image, own string) error {
	there, err := c.resolve(ctx, platform, own, false)
	if err != nil {
		err = newError(ctx, "resolve", own, err)
		if ctx.Err() != nil {
			return err
		}
		return &Error{Op: "compare " + image.source + " with", Source: own, Kind: ErrDisagree, Err: err}
	}
	if there.Digest() != image.Digest() {
		return &Error{Op: "compare " + image.source + " with", Source: own, Kind: ErrDisagree,
			Err: fmt.Errorf("the mirror has %s, its own registry %s", image.Digest(), there.Digest())}
	}
	return nil
}

// resolve tries one reference. When there is an alternative, a registry that was
// down a moment ago is not waited for again.
func (c *Client) resolve(ctx context.Context, platform v1.Platform, ref string, alternative bool) (image *Image, err error) {
	named, r, err := c.parse(ref)
	if err != nil {
		return nil, err
	}
	if err := r.health.asideFor(); err != nil && alternative {
		return nil, &asideError{err}
	}
	defer func() { r.resolved(ctx, err) }()
	m, err := r.manifest(ctx, tagOrDigest(named))
	if err != nil {
		return nil, err
	}
	if m.mediaType.IsIndex() {
		if m, err = r.choose(ctx, named.String(), m, platform); err != nil {
			return nil, err
		}
	}
	parsed, err := v1.ParseManifest(bytes.NewReader(m.raw))
	if err != nil {
		return nil, &Error{Op: "read manifest", Source: named.String(), Kind: ErrAnswer, Err: err}
	}
	if !parsed.Config.MediaType.IsConfig() {
		return nil, &Error{Op: "read manifest", Source: named.String(), Kind: ErrUnsupported,
			Err: fmt.Errorf("config media type %q: an artifact, not a container image", parsed.Config.MediaType)}
	}
	config, err := r.readBlob(ctx, parsed.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	image = &Image{source: named.String(), manifest: *m, config: config, repositories: []*repository{r}, sizes: map[v1.Hash]int64{}}
	for _, d := range append(parsed.Layers, parsed.Config) {
		image.sizes[d.Digest] = d.Size
	}
	// Only an index says what a manifest is for before it is fetched, so this one
	// passes; but who asked for another platform should hear of it.
	if have, err := v1.ParseConfigFile(bytes.NewReader(config)); err == nil && have.Platform() != nil && !matches(*have.Platform(), platform) {
		c.options.Logger.Warn("the image is for another platform", "source", image.source, "platform", have.Platform().String(), "wanted", platform.String())
	}
	c.options.Logger.Info("resolved", "source", image.source, "digest", m.digest.String())
	return image, nil
}

// choose fetches the platform's manifest out of an index.
func (r *repository) choose(ctx context.Context, source string, index *manifest, platform v1.Platform) (*manifest, error) {
	parsed, err := v1.ParseIndexManifest(bytes.NewReader(index.raw))
	if err != nil {
		return nil, &Error{Op: "read index", Source: source, Kind: ErrAnswer, Err: err}
	}
	d, err := choose(parsed, platform)
	if err != nil {
		return nil, &Error{Op: "resolve", Source: source, Kind: ErrPlatform, Err: err}
	}
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

func tagOrDigest(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag() // TagNameOnly saw to it
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
