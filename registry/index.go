package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/imagespec"
)

const (
	// maxListed is how many platforms an error lists.
	maxListed = 20
	// maxNested is how many indexes may stand between the one that a reference names
	// and the image.
	maxNested = 2
	// maxLookups is how many entries of an index are fetched to see what they are,
	// which is needed for those that state no platform.
	maxLookups = 32

	// Annotations of what BuildKit lists beside an image
	// (https://docs.docker.com/build/metadata/attestations/attestation-storage/).
	attestationType    = "vnd.docker.reference.type"
	attestationSubject = "vnd.docker.reference.digest"
)

// A Companion is something that an index lists beside an image and that is no part of
// it.
type Companion struct {
	// Kind is "attestation", "signature" or "artifact".
	Kind string
	// Type is the artifact's or manifest's type as the index states it. "" for an
	// attestation.
	Type string
	// Count is how many there are, at least 1.
	Count int
}

// String returns the companion for people, as in "2 attestations".
func (c Companion) String() string {
	text := fmt.Sprintf("%d %s", c.Count, c.Kind)
	if c.Count != 1 {
		text += "s"
	}
	if c.Type != "" {
		text += fmt.Sprintf(" of type %q", c.Type)
	}
	return text
}

// A listing is where an image was found: in an index, or not.
type listing struct {
	listed     v1.Descriptor // in the last index; zero if there is none
	indexes    [][]byte      // outermost first
	companions []Companion

	manifest *manifest // nil while it is only listed
	config   []byte    // nil while it is not read
	distance int
}

// A finder looks for the image for a platform in an index. It is for one goroutine.
type finder struct {
	repository *repository
	want       v1.Platform
	have       []string // platforms that did not fit
	lookups    int
	failed     error // why an entry is unknown, of the first
}

// find returns the nearest image for the platform: among those whose entry states a
// platform, and if none fits, among the others; the first of equals.
func (f *finder) find(ctx context.Context, index *manifest) (*listing, error) {
	found, err := f.search(ctx, index, 0)
	switch {
	case err != nil:
		return nil, err
	case found != nil:
		return found, nil
	case f.failed != nil:
		return nil, f.failed
	}
	e := &Error{Op: "resolve", Source: f.repository.name + "@" + index.digest.String(), Kind: ErrNoPlatform}
	if len(f.have) == 0 {
		e.Err = fmt.Errorf("%w, wanted is %s", ErrNoImage, f.want)
		return nil, e
	}
	have := f.have
	if len(have) > maxListed {
		have = append(slices.Clone(have[:maxListed]), fmt.Sprintf("… (%d more)", len(have)-maxListed))
	}
	e.Err = fmt.Errorf("wanted is %s, the index has %s", f.want, strings.Join(have, ", "))
	return nil, e
}

// search returns nil if nothing in the index fits. depth is how many indexes it is in.
func (f *finder) search(ctx context.Context, index *manifest, depth int) (*listing, error) {
	entries, err := imagespec.Index(index.raw)
	if err != nil {
		return nil, documentError("read index", f.repository.name+"@"+index.digest.String(), err)
	}
	type choice struct {
		imagespec.Entry
		distance int
	}
	var stated []choice
	var unstated []imagespec.Entry
	for _, e := range entries {
		switch {
		case companion(e.Descriptor).Kind != "":
		case !statesPlatform(e.Platform):
			unstated = append(unstated, e)
		default:
			if d, ok := distance(*e.Platform, f.want); ok {
				stated = append(stated, choice{e, d})
			} else if !slices.Contains(f.have, e.Platform.String()) {
				f.have = append(f.have, e.Platform.String())
			}
		}
	}
	slices.SortStableFunc(stated, func(a, b choice) int { return cmp.Compare(a.distance, b.distance) })
	complete := func(l *listing) *listing {
		l.indexes = append([][]byte{index.raw}, l.indexes...)
		l.companions = append(companions(entries, l.listed.Digest, index.digest), l.companions...)
		return l
	}
	for _, c := range stated {
		switch {
		case c.Err != nil:
			f.unknown(&Error{Op: "read index", Source: f.repository.name + "@" + index.digest.String(), Kind: ErrUnsupported, Err: fmt.Errorf("entry for %s: %w", c.Platform, c.Err)})
		case c.MediaType.IsIndex():
			l, err := f.nested(ctx, c.Descriptor, depth)
			if err != nil {
				return nil, err
			}
			if l != nil {
				return complete(l), nil
			}
		default:
			return complete(&listing{listed: c.Descriptor}), nil
		}
	}
	var nearest *listing
	for _, e := range unstated {
		var l *listing
		var err error
		switch {
		case e.Err != nil:
			f.unknown(&Error{Op: "read index", Source: f.repository.name + "@" + index.digest.String(), Kind: ErrUnsupported, Err: e.Err})
		case e.MediaType.IsIndex():
			l, err = f.nested(ctx, e.Descriptor, depth)
		default:
			l, err = f.lookUp(ctx, e.Descriptor)
		}
		if err != nil {
			return nil, err
		}
		if l != nil && (nearest == nil || l.distance < nearest.distance) {
			nearest = l
		}
		if nearest != nil && nearest.distance == 0 {
			break
		}
	}
	if nearest == nil {
		return nil, nil
	}
	return complete(nearest), nil
}

// unknown records why an entry could not be looked at. It matters if no other fits.
func (f *finder) unknown(err error) {
	if f.failed == nil {
		f.failed = err
	}
}

// nested searches an index within an index.
func (f *finder) nested(ctx context.Context, d v1.Descriptor, depth int) (*listing, error) {
	if depth == maxNested {
		f.unknown(&Error{Op: "read index", Source: f.repository.name + "@" + d.Digest.String(), Kind: ErrUnsupported,
			Err: fmt.Errorf("it is in %d indexes, one within the other: more than %d levels are not followed", depth+1, maxNested)})
		return nil, nil
	}
	m, err := f.fetch(ctx, d)
	if m == nil {
		return nil, err
	}
	return f.search(ctx, m, depth+1)
}

// lookUp fetches an entry that states no platform, to see what it is. What its config
// does not state either is taken as linux/amd64, as go-containerregistry does.
func (f *finder) lookUp(ctx context.Context, d v1.Descriptor) (*listing, error) {
	m, err := f.fetch(ctx, d)
	if m == nil {
		return nil, err
	}
	source := f.repository.name + "@" + d.Digest.String()
	parsed, err := imagespec.Manifest(m.raw)
	switch {
	case errors.Is(err, imagespec.ErrArtifact):
		return nil, nil
	case err != nil:
		f.unknown(documentError("read manifest", source, err))
		return nil, nil
	}
	config, err := f.repository.readBlob(ctx, "config", parsed.Config, maxConfig)
	if err != nil {
		f.unknown(err)
		return nil, endOf(ctx, err)
	}
	file, err := imagespec.Config(config)
	if err != nil {
		return nil, nil // no image
	}
	platform := file.Platform
	if platform.OS == "" && platform.Architecture == "" {
		platform = v1.Platform{OS: "linux", Architecture: "amd64"}
	}
	away, ok := distance(platform, f.want)
	if !ok {
		f.have = append(f.have, platform.String())
		return nil, nil
	}
	return &listing{listed: d, manifest: m, config: config, distance: away}, nil
}

// fetch returns nil and no error for what cannot be fetched, unless the context has
// ended.
func (f *finder) fetch(ctx context.Context, d v1.Descriptor) (*manifest, error) {
	if f.lookups++; f.lookups > maxLookups {
		f.unknown(&Error{Op: "read index", Source: f.repository.name, Kind: ErrUnsupported,
			Err: fmt.Errorf("more than %d of its entries state no platform: they were not all looked at", maxLookups)})
		return nil, nil
	}
	m, err := f.repository.listed(ctx, d)
	if err != nil {
		f.unknown(err)
		return nil, endOf(ctx, err)
	}
	return m, nil
}

// endOf returns err if it is because the context has ended.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return nil
}

// statesPlatform reports whether an entry states a platform that could be compared.
func statesPlatform(p *v1.Platform) bool { return p != nil && p.Architecture != "" }

// companion returns what an entry is if it is no image and no index, as far as the index
// shows it; without a kind if it is one of these.
func companion(d v1.Descriptor) Companion {
	kind := string(cmp.Or(d.ArtifactType, string(d.MediaType)))
	switch {
	case d.Annotations[attestationType] != "":
		return Companion{Kind: "attestation"}
	case imagespec.IsArtifactType(d.ArtifactType), !d.MediaType.IsImage() && !d.MediaType.IsIndex():
		if strings.Contains(kind, "signature") || strings.Contains(kind, "sigstore") || strings.Contains(kind, "cosign") {
			return Companion{Kind: "signature", Type: kind}
		}
		return Companion{Kind: "artifact", Type: kind}
	case d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown":
		return Companion{Kind: "artifact", Type: kind} // an attestation without its annotation
	}
	return Companion{}
}

// companions counts what an index lists beside an image. An attestation of another
// image of the index is not beside this one.
func companions(entries []imagespec.Entry, image ...v1.Hash) (all []Companion) {
	for _, e := range entries {
		c := companion(e.Descriptor)
		about := e.Annotations[attestationSubject]
		if c.Kind == "" || about != "" && !slices.ContainsFunc(image, func(h v1.Hash) bool { return h.String() == about }) {
			continue
		}
		i := slices.IndexFunc(all, func(other Companion) bool { return other.Kind == c.Kind && other.Type == c.Type })
		if i < 0 {
			i, all = len(all), append(all, c)
		}
		all[i].Count++
	}
	return all
}

// documentError is an error about a manifest or index that was served as it is.
func documentError(op, source string, err error) error {
	kind := ErrUnsupported
	if errors.Is(err, imagespec.ErrMalformed) {
		kind = ErrInvalidAnswer
	}
	return &Error{Op: op, Source: source, Kind: kind, Err: err}
}
