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

// A Rule maps a branch, or all with a prefix, to the suffix of its tarballs.
type Rule struct {
	// Branch is the branch's whole name, or with Prefix what it begins with.
	Branch string
	// Prefix makes the rule cover every branch that begins with Branch; all, if that
	// is empty.
	Prefix bool
	// Suffix is what follows the "_" in the tarball's name: 1 to 64 ASCII
	// letters, digits, "_", "-" and ".", the first and the last a letter or a
	// digit. "*" is the branch itself, see [Suffix].
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

func isSuffix(s string) bool { return suffixes.MatchString(s) && !strings.Contains(s, "..") }

func (r Rule) check() error {
	switch {
	case r.Branch == "" && !r.Prefix:
		return fmt.Errorf("%w: rule %q names no branch", ErrRules, r)
	case strings.ContainsAny(r.Branch, "*,"):
		return fmt.Errorf("%w: rule %q: \"*\" may only end the branch, \",\" only separates rules", ErrRules, r)
	case r.Suffix != "*" && !isSuffix(r.Suffix):
		return fmt.Errorf("%w: rule %q: suffix %q: want 1 to 64 letters, digits, \"_\", \"-\", \".\", a letter or digit at both ends, no \"..\"", ErrRules, r, r.Suffix)
	}
	return nil
}

// Rules are tried in order; the first that covers a branch gives its suffix.
// Nil means [PyTorchRules]. A *Rules is a [flag.Value].
type Rules []Rule

// PyTorchRules returns the rules of PyTorch's docker-cache workflow, and one
// more: a branch named just "release". The workflow's trigger lets that one
// through and its script then rejects it.
func PyTorchRules() Rules {
	return Rules{
		{Branch: "main", Suffix: "main"},
		{Branch: "release", Suffix: "release"},
		{Branch: "release/", Prefix: true, Suffix: "release"},
	}
}

// Suffix returns the suffix that the first rule that covers branch gives it. Nil
// rules mean [PyTorchRules].
//
// A rule whose suffix is "*" makes it of the branch, so that no two branches
// have the same one: "/" becomes "-", "-" becomes "--", and "_" becomes "---".
//
//	Suffix("hotfix/123", Rules{{Branch: "hotfix/", Prefix: true, Suffix: "*"}})  // hotfix-123
//
// The error wraps [ErrBranch] when no rule covers the branch, naming the branch
// and the rules, or when no suffix can be made of it: one that would be longer
// than 64 bytes, or a branch in which two of "/", "-", "_" stand side by side,
// or with a character that [Rule] does not allow. It wraps [ErrRules] when the
// rule has a suffix that no file name should have.
func Suffix(branch string, rules Rules) (string, error) {
	if rules == nil {
		rules = PyTorchRules()
	}
	if branch == "" {
		return "", fmt.Errorf("%w %q: it is empty", ErrBranch, branch)
	}
	for _, r := range rules {
		if !r.covers(branch) {
			continue
		}
		if err := r.check(); err != nil {
			return "", err
		}
		if r.Suffix != "*" {
			return r.Suffix, nil
		}
		suffix := escaped.Replace(branch)
		if sideBySide.MatchString(branch) || !isSuffix(suffix) {
			return "", fmt.Errorf("%w %q: the rule %s cannot make one of it: give the branch a rule of its own", ErrBranch, branch, r)
		}
		return suffix, nil
	}
	return "", fmt.Errorf("%w %q: the rules are %s", ErrBranch, branch, rules)
}

var (
	// escaped can be undone: by the lengths of the runs of "-", as long as no
	// two runs touch.
	escaped    = strings.NewReplacer("/", "-", "-", "--", "_", "---")
	sideBySide = regexp.MustCompile(`[/_-]{2}`)
)

// ParseRules reads rules in the form of a flag: BRANCH=SUFFIX, separated by
// commas, where a "*" at the end of BRANCH makes it a prefix, as in
//
//	main=main,release=release,release/*=release
//
// A branch may contain "="; the last one separates. "*" cannot be part of a
// branch's name in Git; a branch with a "," can only be covered by a prefix. A
// SUFFIX of "*" is the branch itself, see [Suffix].
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
