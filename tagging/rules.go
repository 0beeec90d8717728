package tagging

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrBranch is wrapped by the error for a branch that no rule covers.
var ErrBranch = errors.New("no tarball suffix for branch")

// ErrRules is wrapped by every error about the rules themselves.
var ErrRules = errors.New("unusable branch rules")

// A Rule gives branches the suffix that their tarballs carry.
type Rule struct {
	// Branch is the branch's whole name, or with Prefix what it begins with.
	Branch string
	// Prefix makes the rule cover every branch that begins with Branch.
	Prefix bool
	// Suffix is what follows the "_" in the tarball's name: 1 to 64 ASCII
	// letters, digits, "_", "-" and ".", the first and the last a letter or a
	// digit.
	Suffix string
}

// String returns the rule as [ParseRules] reads it.
func (r Rule) String() string {
	star := ""
	if r.Prefix {
		star = "*"
	}
	return r.Branch + star + "=" + r.Suffix
}

func (r Rule) covers(branch string) bool {
	if r.Prefix {
		return strings.HasPrefix(branch, r.Branch)
	}
	return branch == r.Branch
}

// suffixes is the form of a suffix. 64 bytes leave room in a file name for the
// longest tag (128 bytes) and for what a writer adds to a temporary name.
var suffixes = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$`)

func (r Rule) check() error {
	switch {
	case r.Branch == "" && !r.Prefix:
		return fmt.Errorf("%w: rule %q names no branch", ErrRules, r)
	case strings.ContainsAny(r.Branch, "*,"):
		return fmt.Errorf("%w: rule %q: \"*\" may only end the branch, \",\" only separates rules", ErrRules, r)
	case !suffixes.MatchString(r.Suffix) || strings.Contains(r.Suffix, ".."):
		return fmt.Errorf("%w: rule %q: suffix %q: want 1 to 64 letters, digits, \"_\", \"-\", \".\", a letter or digit at both ends, no \"..\"", ErrRules, r, r.Suffix)
	}
	return nil
}

// Rules are tried in order; the first that covers a branch gives its suffix.
// Nil means [DefaultRules]. A *Rules is a [flag.Value].
type Rules []Rule

// DefaultRules returns the rules of the workflow that this project replaces,
// and one more: a branch named just "release". The workflow's trigger lets that
// one through and its script then rejects it.
func DefaultRules() Rules {
	return Rules{
		{Branch: "main", Suffix: "main"},
		{Branch: "release", Suffix: "release"},
		{Branch: "release/", Prefix: true, Suffix: "release"},
	}
}

// ParseRules reads rules as a flag states them: BRANCH=SUFFIX, separated by
// commas, where a "*" at the end of BRANCH makes it a prefix, as in
//
//	main=main,release=release,release/*=release
//
// A branch may contain "="; the last one separates. "*" cannot be part of a
// branch's name in Git; a branch with a "," can only be covered by a prefix.
// The error wraps [ErrRules]: no rule at all, a rule of another form, or two
// rules for the same branch.
func ParseRules(s string) (Rules, error) {
	var rules Rules
	seen := map[string]bool{}
	for text := range strings.SplitSeq(s, ",") {
		i := strings.LastIndexByte(text, '=')
		if i < 0 {
			return nil, fmt.Errorf("%w %q: rule %q: want BRANCH=SUFFIX or PREFIX*=SUFFIX", ErrRules, s, text)
		}
		var r Rule
		r.Suffix = text[i+1:]
		r.Branch, r.Prefix = strings.CutSuffix(text[:i], "*")
		if err := r.check(); err != nil {
			return nil, err
		}
		if seen[text[:i]] {
			return nil, fmt.Errorf("%w %q: two rules for %q", ErrRules, s, text[:i])
		}
		seen[text[:i]] = true
		rules = append(rules, r)
	}
	return rules, nil
}

// String returns the rules as [ParseRules] reads them.
func (rs Rules) String() string {
	texts := make([]string, len(rs))
	for i, r := range rs {
		texts[i] = r.String()
	}
	return strings.Join(texts, ",")
}

// Set replaces the rules by those that s states, for package flag.
func (rs *Rules) Set(s string) error {
	rules, err := ParseRules(s)
	if err != nil {
		return err
	}
	*rs = rules
	return nil
}

// Suffix returns the suffix of the first rule that covers branch. The error
// wraps [ErrBranch] when none does, naming the branch and the rules, and
// [ErrRules] when the rule that does has a suffix that no file name should have.
func (rs Rules) Suffix(branch string) (string, error) {
	if rs == nil {
		rs = DefaultRules()
	}
	if branch == "" {
		return "", fmt.Errorf("%w %q: it is empty", ErrBranch, branch)
	}
	for _, r := range rs {
		if r.covers(branch) {
			if err := r.check(); err != nil {
				return "", err
			}
			return r.Suffix, nil
		}
	}
	return "", fmt.Errorf("%w %q: the rules are %s", ErrBranch, branch, rs)
}
