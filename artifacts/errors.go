package artifacts

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// The kinds of trouble. Every [*Error] wraps one of them.
var (
	// ErrRequest: what was asked for cannot be: a malformed repository, run ID
	// or pattern. Nothing was sent.
	ErrRequest = errors.New("unusable request")
	// ErrNotFound: the API says that there is no such thing. It says the same
	// of a repository that the token may not see.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the token is missing, wrong, or not sufficient.
	ErrDenied = errors.New("denied")
	// ErrRateLimited: the API asks to wait for longer than allowed.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnreachable: no answer, or only answers such as 503 that may be better
	// later, after all retries.
	ErrUnreachable = errors.New("unreachable")
	// ErrAnswer: what came back is not what the Actions API answers.
	ErrAnswer = errors.New("not the Actions API's answer")
	// ErrOtherRepository: the run, or an artifact, belongs to another
	// repository or run than the one that was asked for.
	ErrOtherRepository = errors.New("of another repository or run")
	// ErrExpired: the artifact was deleted at the end of its retention.
	ErrExpired = errors.New("expired")
	// ErrNoArtifact: the run is there, but has not left what was asked for.
	ErrNoArtifact = errors.New("the run did not leave it behind")
	// ErrDigest: an artifact's bytes do not have the digest or the size that
	// the API states.
	ErrDigest = errors.New("wrong digest or size")
	// ErrArchive: an archive that is damaged, or that could do harm when it is
	// unpacked. The error says which rule, and which entry.
	ErrArchive = errors.New("unsafe archive")
	// ErrLimit: more or larger than [Limits] allow.
	ErrLimit = errors.New("over the limit")
	// ErrConflict: two artifacts hold the same path with different content.
	ErrConflict = errors.New("conflicting artifacts")
	// ErrEvent: not an event that names a build run.
	ErrEvent = errors.New("unusable event")
	// ErrRefused: a [Gate] refused the run or a reference.
	ErrRefused = errors.New("refused")
)

// advice is what a person can do about each kind of trouble. Kinds that are not
// here have their advice in each error, because it depends on the case.
var advice = map[error]string{
	ErrNotFound:        `check the repository's name and the ID; a token without the permission "actions: read" is told the same`,
	ErrDenied:          `check the token and its permission "actions: read"`,
	ErrRateLimited:     "try again then, or use a token with a higher limit",
	ErrUnreachable:     "check the network and GITHUB_API_URL, or try again later",
	ErrAnswer:          "check GITHUB_API_URL, and that no proxy changes the answers",
	ErrOtherRepository: "ask for it by the repository and the run that it belongs to",
	ErrExpired:         "run the build again",
	ErrDigest:          "try again; if it stays so, the artifact is damaged: run the build again",
	ErrArchive:         "look at what the build uploaded before anything of it is used",
	ErrLimit:           "if the build is meant to leave so much, raise the limit",
	ErrConflict:        "let the builds write different files, or ask for the last one to win",
}

// An Error says what was done to what when it failed, the kind of trouble, and
// what to do about it. Its text is one line, of bounded length, with no secret
// in it.
type Error struct {
	// Op is what was done, such as "list the artifacts of run 5 of".
	Op string
	// Source is what it was done to: a repository, an artifact, a reference.
	Source string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause; nil when the kind says it all.
	Err error
}

func (e *Error) Error() string {
	text := e.Op + " " + e.Source + ": " + e.Kind.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	text = clean(text)
	if tip := advice[e.Kind]; tip != "" {
		text += " (" + tip + ")"
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// newError makes an Error of whatever a request ended with. A context that
// ended is not the API's trouble, so its cause is returned as it is.
func newError(ctx context.Context, op, source string, kind, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &Error{Op: op, Source: source, Kind: kind, Err: err}
}

// queries are the query strings of URLs: they sign the URLs of blob storage.
var queries = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?[^\s"']+`) })

// longest is how long the foreign part of an error's text may get, in bytes.
const longest = 1000

// clean makes a text fit to be shown: without secrets, on one line, of bounded
// length. Much of it is foreign: an artifact could make it look like several
// lines of a log. [Plain] is for what goes to the runner.
func clean(text string) string {
	text = queries().ReplaceAllString(text, "?…")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
