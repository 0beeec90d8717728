package tagging

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dockercache/dockercache/internal/refname"
)

// ErrMirror is wrapped by every error about a [MirrorRule].
var ErrMirror = errors.New("unusable mirror")

// A MirrorRule states that images of some repositories are in a mirror too.
type MirrorRule struct {
	// Prefix selects the repositories: HOST all of a registry, HOST/PATH the
	// repository of that name and all below it. If it is empty, the mirror is one
	// repository, for the images of one other.
	Prefix string
	// At is where they are: HOST or HOST/PATH, which takes the place of the prefix. If
	// that is empty, it is the repository, as for [Mirror].
	At string
}

// ParseMirrorRule reads a rule in the form of a flag: PREFIX=AT, or the repository AT.
//
//	docker.io=mirror.example                                  // docker.io/library/debian: mirror.example/library/debian
//	ghcr.io/pytorch/ci-image=mirror.example/images/pytorch    // this repository, and those below it
//	mirror.example/library/debian                             // of the one repository that images are of
//
// Prefixes end where elements of a path do: ghcr.io/py is none of ghcr.io/pytorch. They
// are of the complete reference, which for Docker's official images has "library" in it.
// The error wraps [ErrMirror].
func ParseMirrorRule(text string) (MirrorRule, error) {
	prefix, at, found := strings.Cut(text, "=")
	var r MirrorRule
	var err error
	if !found {
		r.At, err = mirrorRepository(text)
	} else if r.Prefix, err = checkPrefix(prefix); err == nil {
		r.At, err = checkPrefix(at)
	}
	if err != nil {
		return MirrorRule{}, fmt.Errorf("%w: %w", ErrMirror, err)
	}
	return r, nil
}

// checkPrefix returns HOST or HOST/PATH as complete references have it.
func checkPrefix(s string) (string, error) {
	host, _, _ := strings.Cut(s, "/")
	s = strings.Replace(s, host, strings.ToLower(host), 1) // a host has no case
	const below = "/x/x"                                   // with two elements nothing is added in front
	named, err := refname.Parse(s + below)
	if err != nil {
		if _, own := refname.Parse(s); own != nil {
			err = own // which quotes s
		} else {
			err = fmt.Errorf("%w: leave out its tag or digest", err)
		}
	}
	switch shown := refname.Printable(s); {
	case strings.HasSuffix(s, "/") && !strings.HasSuffix(s, "://"):
		return "", fmt.Errorf("%q: leave the \"/\" at its end out", shown)
	case s == "" || err == nil && !strings.ContainsAny(host, ".:") && host != "localhost":
		return "", fmt.Errorf("%q begins with no host: want HOST or HOST/PATH, such as docker.io or docker.io/library/debian", shown)
	case err != nil:
		return "", fmt.Errorf("%q: %w", shown, err)
	}
	return strings.TrimSuffix(named.Name(), below), nil
}

// String returns the rule as [ParseMirrorRule] reads it.
func (r MirrorRule) String() string {
	if r.Prefix == "" {
		return r.At
	}
	return r.Prefix + "=" + r.At
}

// repository returns where the images of a repository are; "" if the rule is not for it.
func (r MirrorRule) repository(name string) (string, error) {
	host, path, _ := strings.Cut(name, "/")
	name = strings.ToLower(host) + "/" + path
	rest, covers := "", r.Prefix == "" || name == r.Prefix
	if !covers {
		rest, covers = strings.CutPrefix(name, r.Prefix+"/")
		rest = "/" + rest
	}
	switch {
	case !covers:
		return "", nil
	case !strings.Contains(r.At+rest, "/"):
		return "", fmt.Errorf("%w %s: it gives no repository for %s: want HOST/PATH on the right", ErrMirror, r, name)
	}
	at, err := mirrorRepository(r.At + rest)
	if err != nil {
		return "", fmt.Errorf("%w %s: %w", ErrMirror, r, err)
	}
	return at, nil
}

// MirrorRules are all rules together. Every one that is for an image's repository gives
// a mirror of it, in their order.
type MirrorRules []MirrorRule

// Mirrors returns the references that an image has in its mirrors, each once, in the
// order of the rules; none if no rule is for it. The error wraps [ErrReference], as that
// of [Mirror], or [ErrMirror].
func (rs MirrorRules) Mirrors(image string) ([]string, error) {
	r, err := parse(image)
	if err != nil {
		return nil, err
	}
	var mirrors []string
	seen := map[string]bool{r.named.Name(): true} // no mirror of itself
	for _, rule := range rs {
		at, err := rule.repository(r.named.Name())
		if err != nil {
			return nil, err
		}
		if at != "" && !seen[at] {
			mirrors = append(mirrors, r.in(at))
		}
		seen[at] = true
	}
	return mirrors, nil
}

// Check returns an error that wraps [ErrMirror] if one repository would be the mirror of
// two: then a tag in it could be either's. Two rules that put different prefixes at one
// place are an error whatever the images are, and so is a rule without a prefix if images
// are of several repositories. What is no reference is left out.
func (rs MirrorRules) Check(images ...string) error {
	for i, rule := range rs {
		for _, other := range rs[:i] {
			if rule.Prefix != "" && other.Prefix != "" && rule.At == other.At && rule.Prefix != other.Prefix {
				return fmt.Errorf("%w: %s and %s put different repositories at one place: give each a path of its own", ErrMirror, other, rule)
			}
		}
	}
	of := map[string]string{}
	for _, image := range images {
		r, err := parse(image)
		if err != nil {
			continue
		}
		name := r.named.Name()
		for _, rule := range rs {
			at, err := rule.repository(name)
			if err != nil {
				return err
			}
			if other, ok := of[at]; ok && at != "" && other != name {
				return fmt.Errorf("%w: %s would be the mirror of both %s and %s: state of which one, as %s=%s", ErrMirror, at, other, name, other, at)
			}
			of[at] = name
		}
	}
	return nil
}
