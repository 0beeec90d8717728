package tagging

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrScheme is wrapped by errors about a [Scheme]: a text that is none, or a
// name or platform that cannot be part of a tarball's name.
var ErrScheme = errors.New("unusable naming scheme")

// A Scheme defines what the names of tarballs are made of. The zero value makes
// the names of [Name] and [Tarball]. A *Scheme is a [flag.Value].
type Scheme struct {
	// Name, when it is not empty, stands in place of what the tag gives, so that a
	// reference may have a digest only. It has the form of a tag and does not end in
	// ".tar". One name is for one image: see package cache for what happens to another
	// repository's.
	Name string
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
	// NoSuffix leaves the suffix out of the tarball's name, and the branch with it: for
	// images that no branch was built from.
	NoSuffix bool
	// Rules are those for the suffix. Nil means [PyTorchRules].
	Rules Rules
}

// Names are the names of one image, as a [Scheme] makes them.
type Names struct {
	// Tarball is the file's name, at most 200 bytes: Group, "_", Suffix, ".tar", or with
	// [Scheme.NoSuffix] Group, ".tar".
	Tarball string
	// Group is the name without the suffix: what an image's tarballs of several
	// branches have in common. Record it with the tarball: it cannot be derived
	// from the file's name, since a suffix may contain "_".
	Group string
	// Suffix is that of the branch; empty with [Scheme.NoSuffix].
	Suffix string
	// RepoTag is the name in an engine, see [RepoTag].
	RepoTag string
}

// maxTarball is the longest name of a tarball, in bytes. It leaves room in a
// file name for what a writer adds to it in a temporary name.
const maxTarball = 200

// Names returns the names of an image that was built from a branch. The
// branch is not looked at if the scheme has no suffix. The platform, as OS/ARCHITECTURE or
// OS/ARCHITECTURE/VARIANT, is used only if the scheme puts it into the name.
//
// In the group a "+" stands for "/", and a "@" for ":" and before the platform:
//
//	ghcr.io+org+images@jammy@linux+arm64
//
// The errors are those of [Name] and [Suffix], and wrap [ErrReference] for a
// name of more than 200 bytes, [ErrScheme] for a malformed name or platform, [ErrRules]
// for a suffix with "_" where the scheme does not allow it.
func (s Scheme) Names(image, branch, platform string) (Names, error) {
	r, err := parse(image)
	if err != nil {
		return Names{}, err
	}
	group, err := s.group(image, r, platform)
	if err != nil {
		return Names{}, err
	}
	suffix, tarball := "", group+".tar"
	if !s.NoSuffix {
		if suffix, err = Suffix(branch, s.Rules); err != nil {
			return Names{}, err
		}
		tarball = group + "_" + suffix + ".tar"
	}
	if s.Repository && strings.Contains(suffix, "_") {
		return Names{}, fmt.Errorf("%w: suffix %q: with the scheme %q it must not contain \"_\", which would make names ambiguous", ErrRules, suffix, s)
	}
	if len(tarball) > maxTarball {
		return Names{}, fmt.Errorf("%w %q: the tarball's name %q has %d bytes, more than %d", ErrReference, image, tarball, len(tarball), maxTarball)
	}
	return Names{Tarball: tarball, Group: group, Suffix: suffix, RepoTag: r.repoTag()}, nil
}

// platforms is the form of a platform.
var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$`)

// joined replaces what separates the parts of a reference and of a platform by
// characters that none of them can contain.
var joined = strings.NewReplacer("/", "+", ":", "@")

// names is the form of a name that is given: that of a tag, so that it has no character
// of joined.
var names = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

func (s Scheme) group(image string, r ref, platform string) (string, error) {
	name, err := s.name(image, r)
	if err != nil {
		return "", err
	}
	if s.Repository {
		name = joined.Replace(r.named.Name() + ":" + name)
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

// name returns what stands for the tag.
func (s Scheme) name(image string, r ref) (string, error) {
	if s.Name != "" {
		switch {
		case !names.MatchString(s.Name) || strings.Contains(s.Name, ".."):
			return "", fmt.Errorf("%w: the name %q: want 1 to 128 letters, digits, \"_\", \"-\", \".\", no \".\" or \"-\" first, no \"..\"", ErrScheme, s.Name)
		case strings.HasSuffix(s.Name, ".tar"):
			return "", fmt.Errorf("%w: the name %q: leave \".tar\" out, it is added", ErrScheme, s.Name)
		}
		return s.Name, nil
	}
	if r.tag == "" {
		return "", fmt.Errorf("%w %q: it has a digest but no tag: the tarball is named after the tag: want REPOSITORY:TAG@DIGEST, or a name for the tarball", ErrReference, image)
	}
	name, part := s.split(r.tag)
	if err := checkElement(name); err != nil {
		if part == "" {
			return "", fmt.Errorf("%w %q: its tag %w", ErrReference, image, err)
		}
		return "", fmt.Errorf("%w %q: its tag %q without the last \"-\" part gives the name %q, which %w", ErrReference, image, r.tag, name, err)
	}
	return name, nil
}

// split returns what of a tag is in the name, and what is left out, without its "-".
func (s Scheme) split(tag string) (name, part string) {
	if i := strings.LastIndexByte(tag, '-'); i >= 0 && !s.KeepTag {
		return tag[:i], tag[i+1:]
	}
	return tag, ""
}

// hashes are what a build leaves in the last part of a tag: a commit's or a tree's hash,
// whole or shortened to no less than Git does (core.abbrev, 7 digits), also as git
// describe writes it, with a "g" in front; and a date of eight digits.
var hashes = regexp.MustCompile(`^g?[0-9a-f]{7,64}$`)

// Stripped returns the part of an image's tag that the scheme leaves out of the name,
// without its "-"; "" if there is none. It reports whether that looks like a hash: 7 to 64
// hexadecimal digits, with or without a "g" in front. If it does not, as in "3.12-slim",
// it most likely is what distinguishes this image from others, which become one tarball
// unless the scheme keeps the whole tag.
func (s Scheme) Stripped(image string) (part string, isHash bool) {
	r, err := parse(image)
	if err != nil || s.Name != "" {
		return "", false
	}
	_, part = s.split(r.tag)
	return part, hashes.MatchString(part)
}

// ParseScheme reads a scheme in the form of a flag, without rules and name: "strip" (the
// default) or "tag" (the whole tag), "repository", "platform", "nosuffix", or several of
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
		case "nosuffix":
			s.NoSuffix = true
		default:
			return Scheme{}, fmt.Errorf("%w %q: want strip, tag, repository, platform, nosuffix, or several of them joined by \"+\"", ErrScheme, text)
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
	if s.NoSuffix {
		parts = append(parts, "nosuffix")
	}
	return strings.Join(parts, "+")
}

// Set replaces all but the rules and the name by what text states, for package flag.
func (s *Scheme) Set(text string) error {
	parsed, err := ParseScheme(text)
	if err != nil {
		return err
	}
	parsed.Rules, parsed.Name = s.Rules, s.Name
	*s = parsed
	return nil
}
