// Package naming has the flags of the examples that decide what a tarball is called and
// which mirrors an image has, so that who stocks an image and who loads it agree.
package naming

import (
	"cmp"
	"errors"
	"flag"
	"fmt"

	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/tagging"
)

// DefaultBranch is the branch of images if none is given.
const DefaultBranch = "main"

// Flags are the values of the flags; see [Flags.Register].
type Flags struct {
	// Scheme is that of -naming, -name and -rules.
	Scheme tagging.Scheme
	// Mirrors are those of -mirror, once [Flags.Check] was called.
	Mirrors tagging.MirrorRules

	mirrors cli.List
	set     *flag.FlagSet
}

// Register defines -naming, -name and -rules in a set.
func (f *Flags) Register(set *flag.FlagSet) {
	f.set, f.Scheme.Rules = set, tagging.PyTorchRules()
	set.Var(&f.Scheme, "naming", "what a tarball's name is made of, as `SCHEME`: strip (the tag without its last \"-\" part) or tag (all of it), and any of repository, platform and nosuffix (no branch), joined by \"+\" (default strip)")
	set.StringVar(&f.Scheme.Name, "name", "", "the `NAME` of the tarball in place of the tag, for one IMAGE, which may then have a digest and no tag")
	set.Var(&f.Scheme.Rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas; the SUFFIX * is made of the branch")
}

// RegisterMirrors defines -mirror. Its help ends with usage.
func (f *Flags) RegisterMirrors(set *flag.FlagSet, usage string) {
	set.Var(&f.mirrors, "mirror", "a mirror, as `PREFIX=AT`: images of the registry or path PREFIX, such as docker.io, are at AT too, with the rest of their path; or as HOST/PATH for images of one repository; may be repeated"+usage)
}

// HasMirrors reports whether there is a mirror.
func (f *Flags) HasMirrors() bool { return len(f.mirrors) > 0 }

// Check returns what is wrong with the flags together and for these images.
func (f *Flags) Check(images []string) error {
	if f.Scheme.Name != "" {
		if len(images) != 1 {
			return fmt.Errorf("-name is for one IMAGE, %d were given", len(images))
		}
		if _, err := (tagging.Scheme{Name: f.Scheme.Name, NoSuffix: true}).Names("x:t", "", ""); err != nil {
			return fmt.Errorf("-name: %w", err)
		}
	}
	f.Mirrors = nil
	for _, text := range f.mirrors {
		rule, err := tagging.ParseMirrorRule(text)
		if err != nil {
			return fmt.Errorf("-mirror: %w", err)
		}
		f.Mirrors = append(f.Mirrors, rule)
	}
	return f.CheckMirrors(images)
}

// CheckMirrors returns an error if one place would be the mirror of images of several
// repositories.
func (f *Flags) CheckMirrors(images []string) error {
	if err := f.Mirrors.Check(images...); err != nil {
		return fmt.Errorf("-mirror: %w", err)
	}
	return nil
}

// Branch returns the branch that was given, or the default one; "" if no name needs it.
// The error is that of [Flags.CheckBranch].
func (f *Flags) Branch(given string) (string, error) {
	if given == "" && f.Scheme.NoSuffix {
		return "", nil
	}
	branch := cmp.Or(given, DefaultBranch)
	err := f.CheckBranch(branch)
	if err != nil && given == "" {
		err = fmt.Errorf("-branch is required: which branch were the images built from? For the default: %w", err)
	}
	return branch, err
}

// CheckBranch returns an error for a branch that gives no suffix.
func (f *Flags) CheckBranch(branch string) error {
	if f.Scheme.NoSuffix {
		return nil
	}
	_, err := tagging.Suffix(branch, f.Scheme.Rules)
	return f.explain(err)
}

// Names returns the names of an image.
func (f *Flags) Names(image, branch, platform string) (tagging.Names, error) {
	names, err := f.Scheme.Names(image, branch, platform)
	if errors.Is(err, tagging.ErrReference) && f.Scheme.Name == "" {
		if _, refErr := tagging.RepoTag(image); refErr == nil { // it is the name that is not usable
			err = fmt.Errorf("%w: give the tarball one with -name NAME", err)
		}
	}
	return names, f.explain(err)
}

// explain adds the flags that help.
func (f *Flags) explain(err error) error {
	switch {
	case errors.Is(err, tagging.ErrBranch):
		s := f.Scheme
		s.NoSuffix = true
		return fmt.Errorf("%w: give it one with -rules BRANCH=SUFFIX, or leave suffixes out with -naming %s", err, s)
	case errors.Is(err, tagging.ErrScheme) && f.Scheme.Platform:
		return fmt.Errorf("%w: -platform states it", err)
	}
	return err
}

// NeedsPlatform returns an error if the platform must be part of the names, and is not:
// then the images of several platforms would be one tarball.
func (f *Flags) NeedsPlatform(why string) error {
	if f.Scheme.Platform {
		return nil
	}
	s := f.Scheme
	s.Platform = true
	return fmt.Errorf("%s: the platform must be part of the tarball's name, as with -naming %s", why, s)
}

// Remark returns what a person should know about the names that the default scheme makes
// for images; "" if there is nothing, or a scheme was given.
func (f *Flags) Remark(images []string, branch string) string {
	given := false
	f.set.Visit(func(g *flag.Flag) { given = given || g.Name == "naming" })
	if given {
		return ""
	}
	for _, image := range images {
		part, isHash := f.Scheme.Stripped(image)
		names, err := f.Scheme.Names(image, branch, "")
		if err == nil && part != "" && !isHash {
			return fmt.Sprintf("%q: its tarball is %s, without %q, which does not look like a build's hash. To keep it use -naming tag, also where the image is loaded; -naming strip is the same as now, without this remark", image, names.Tarball, "-"+part)
		}
	}
	return ""
}
