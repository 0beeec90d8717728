package artifacts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// checkAllowed checks an entry of [Gate.Allow].
func checkAllowed(entry string) error {
	prefix, all := strings.CutSuffix(entry, "/*")
	if all {
		prefix += "/x"
	}
	named, err := reference.ParseNormalizedNamed(prefix)
	switch {
	case err != nil:
		return fmt.Errorf("want HOST/REPOSITORY: %w", err)
	case !reference.IsNameOnly(named):
		return errors.New("want HOST/REPOSITORY, without a tag or digest")
	case named.Name() != prefix:
		// An entry that is not what references become would match none of them.
		return fmt.Errorf("want HOST/REPOSITORY in full, which would be %s", strings.TrimSuffix(named.Name(), "/x"))
	}
	return nil
}

// CheckReference decides about an image's reference. It is read as registries
// and Docker read it, and the repository that comes out, host and port included,
// must be one of Allow: what only looks like an allowed one ("ghcr.io@evil/x",
// "ghcr.io:443/x", "GHCR.IO/x") is not. A refusal is of kind [ErrRefused].
func (g *Gate) CheckReference(ref string) error {
	refuse := func(format string, args ...any) error {
		return &Error{Op: "trust the reference", Source: fmt.Sprintf("%.300q", ref), Kind: ErrRefused, Err: fmt.Errorf(format, args...)}
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return refuse("by the rule for references: %w", err)
	}
	if len(g.Allow) == 0 && g.AnyReference {
		return nil
	}
	if slices.ContainsFunc(g.Allow, func(entry string) bool {
		prefix, all := strings.CutSuffix(entry, "*")
		return entry == named.Name() || all && strings.HasSuffix(prefix, "/") && strings.HasPrefix(named.Name(), prefix)
	}) {
		return nil
	}
	return refuse("by the rule for repositories: it is in %q, allowed are %q: allow that one if it is yours", named.Name(), g.Allow)
}
