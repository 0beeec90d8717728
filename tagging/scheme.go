package tagging

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrScheme is wrapped by errors about a [Scheme]: a text that is none, or a
// platform that cannot be part of a name.
var ErrScheme = errors.New("unusable naming scheme")

// A Scheme defines what the names of tarballs are made of. The zero value makes
// the names of [Name] and [Tarball]. A *Scheme is a [flag.Value].
type Scheme struct {
	// KeepTag keeps the whole tag. Default: the last "-" part is left out, so
	// that a rebuilt image replaces the one before it.
	KeepTag bool
	// Repository puts the registry and the repository in front of the tag. Then
	// images that differ in the repository, in what is left of the tag, in the
	// platform (if that is part of the name) or in the suffix never have the
	// same name. Suffixes must not contain "_".
	Repository bool
	// Platform puts the platform behind the tag.
	Platform bool
	// Rules are those for the suffix. Nil means [PyTorchRules].
	Rules Rules
}

// Names are the names of one image, as a [Scheme] makes them.
type Names struct {
	// Tarball is the file's name, at most 200 bytes: Group, "_", Suffix, ".tar".
	Tarball string
	// Group is the name without the suffix: what an image's tarballs of several
	// branches have in common. Record it with the tarball: it cannot be derived
	// from the file's name, since a suffix may contain "_".
	Group string
	// Suffix is that of the branch.
	Suffix string
	// RepoTag is the name in an engine, see [RepoTag].
	RepoTag string
}

// maxTarball is the longest name of a tarball, in bytes. It leaves room in a
// file name for what a writer adds to it in a temporary name.
const maxTarball = 200

// Names returns the names of an image that was built from a branch. The
// platform, as OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, is used only if the
// scheme puts it into the name.
//
// In the group a "+" stands for "/", and a "@" for ":" and before the platform:
//
//	ghcr.io+org+images@jammy@linux+arm64
//
// The errors are those of [Name] and [Suffix], and wrap [ErrReference] for a
// name of more than 200 bytes, [ErrScheme] for a malformed platform, [ErrRules]
// for a suffix with "_" where the scheme does not allow it.
func (s Scheme) Names(image, branch, platform string) (Names, error) {
	ref, err := parse(image)
	if err != nil {
		return Names{}, err
	}
	group, err := s.group(image, ref, platform)
	if err != nil {
		return Names{}, err
	}
	suffix, err := Suffix(branch, s.Rules)
	if err != nil {
		return Names{}, err
	}
	if s.Repository && strings.Contains(suffix, "_") {
		return Names{}, fmt.Errorf("%w: suffix %q: with the scheme %q it must not contain \"_\", which would make names ambiguous", ErrRules, suffix, s)
	}
	tarball := group + "_" + suffix + ".tar"
	if len(tarball) > maxTarball {
		return Names{}, fmt.Errorf("%w %q: the tarball's name %q has %d bytes, more than %d", ErrReference, image, tarball, len(tarball), maxTarball)
	}
	return Names{Tarball: tarball, Group: group, Suffix: suffix, RepoTag: ref.repoTag()}, nil
}

// platforms is the form of a platform.
var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$`)

// joined replaces what separates the parts of a reference and of a platform by
// characters that none of them can contain.
var joined = strings.NewReplacer("/", "+", ":", "@")

func (s Scheme) group(image string, ref tagged, platform string) (string, error) {
	name := ref.tag
	if i := strings.LastIndexByte(name, '-'); i >= 0 && !s.KeepTag {
		name = name[:i]
	}
	if err := checkElement(name); err != nil {
		if s.KeepTag {
			return "", fmt.Errorf("%w %q: its tag %w", ErrReference, image, err)
		}
		return "", fmt.Errorf("%w %q: its tag %q without the last \"-\" part gives the name %q, which %w", ErrReference, image, ref.tag, name, err)
	}
	if s.Repository {
		name = joined.Replace(ref.named.Name() + ":" + name)
	}
	if s.Platform {
		if !platforms.MatchString(platform) {
			return "", fmt.Errorf("%w %q: it needs a platform, and %q is not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT", ErrScheme, s, platform)
		}
		name += "@" + joined.Replace(platform)
	}
	if err := checkElement(name); err != nil {
		return "", fmt.Errorf("%w %q: the name %q %w", ErrReference, image, name, err)
	}
	return name, nil
}

// ParseScheme reads a scheme in the form of a flag, without rules: "strip" (the
// default) or "tag" (the whole tag), "repository", "platform", or several of
// these joined by "+", as in
//
//	tag+repository+platform
//
// The error wraps [ErrScheme].
func ParseScheme(text string) (Scheme, error) {
	var s Scheme
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, "+") {
		switch part {
		case "strip":
		case "tag":
			s.KeepTag = true
		case "repository":
			s.Repository = true
		case "platform":
			s.Platform = true
		default:
			return Scheme{}, fmt.Errorf("%w %q: want strip, tag, repository, platform, or several of them joined by \"+\"", ErrScheme, text)
		}
		if seen[part] || s.KeepTag && (seen["strip"] || part == "strip") {
			return Scheme{}, fmt.Errorf("%w %q: %q contradicts or repeats what is before it", ErrScheme, text, part)
		}
		seen[part] = true
	}
	return s, nil
}

// String returns the scheme as [ParseScheme] reads it.
func (s Scheme) String() string {
	parts := []string{"strip"}
	if s.KeepTag {
		parts[0] = "tag"
	}
	if s.Repository {
		parts = append(parts, "repository")
	}
	if s.Platform {
		parts = append(parts, "platform")
	}
	return strings.Join(parts, "+")
}

// Set replaces all but the rules by what text states, for package flag.
func (s *Scheme) Set(text string) error {
	parsed, err := ParseScheme(text)
	if err != nil {
		return err
	}
	parsed.Rules = s.Rules
	*s = parsed
	return nil
}
