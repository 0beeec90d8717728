package artifacts

import (
	"context"
	"errors"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// The kinds of errors. Each [*Error] wraps one of them.
var (
	// ErrRequest: an argument is malformed, such as a repository, a run ID or a
	// pattern. Nothing was sent.
	ErrRequest = errors.New("unusable request")
	// ErrNotFound: the API answers that there is no such thing. It answers the
	// same for a repository that the token may not see.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the token is missing, wrong, or not sufficient.
	ErrDenied = errors.New("denied")
	// ErrRateLimited: the API asks to wait for longer than [Options.MaxWait].
	ErrRateLimited = errors.New("rate limited")
	// ErrUnreachable: no answer, or only answers such as 503 that may be better
	// later, after all retries.
	ErrUnreachable = errors.New("unreachable")
	// ErrAnswer: the answer does not have the form of the Actions API's.
	ErrAnswer = errors.New("not the Actions API's answer")
	// ErrOtherRepository: the run, or an artifact, belongs to another
	// repository or run than the one that was asked for.
	ErrOtherRepository = errors.New("of another repository or run")
	// ErrExpired: the artifact was deleted at the end of its retention.
	ErrExpired = errors.New("expired")
	// ErrNoArtifact: the run has no artifact, or no output, of that name.
	ErrNoArtifact = errors.New("the run has no such artifact or output")
	// ErrDigest: an artifact's bytes do not have the digest or the size that
	// the API states.
	ErrDigest = errors.New("wrong digest or size")
	// ErrArchive: an archive that is damaged, or not safe to unpack. The error
	// names the rule and the entry.
	ErrArchive = errors.New("unsafe archive")
	// ErrLimit: more or larger than [Limits] allow.
	ErrLimit = errors.New("over the limit")
	// ErrConflict: two artifacts contain the same path with different content.
	ErrConflict = errors.New("conflicting artifacts")
	// ErrEvent: not an event that names a build run.
	ErrEvent = errors.New("unusable event")
	// ErrRefused: a [Policy] or [Request.Accept] refused the run or a reference.
	ErrRefused = errors.New("refused")
)

// advice is what a person can do about each kind of error. For other kinds the
// advice depends on the case and is in the cause.
var advice = map[error]string{
	ErrNotFound:        `check the repository's name and the ID; a token without the permission "actions: read" gets the same answer`,
	ErrDenied:          `check the token and its permission "actions: read"`,
	ErrRateLimited:     "try again then, or use a token with a higher limit",
	ErrUnreachable:     "check the network and GITHUB_API_URL, or try again later",
	ErrAnswer:          "check GITHUB_API_URL, and that no proxy changes the answers",
	ErrOtherRepository: "ask for it by the repository and the run that it belongs to",
	ErrExpired:         "run the build again",
	ErrDigest:          "try again; if it stays so, the artifact is damaged: run the build again",
	ErrArchive:         "look at what the build uploaded before you use any of it",
	ErrLimit:           "if the build is meant to upload so much, raise Options.Limits of package artifacts, for which the programs have no flag",
	ErrConflict:        "let the builds write different files, or ask for the last one to win",
}

// An Error has the operation that failed, the kind of the error, and advice. Its
// text is one line, of bounded length, without secrets.
type Error struct {
	// Op is the operation, such as "list the artifacts of run 5 of".
	Op string
	// Source is what it was applied to: a repository, an artifact, a reference.
	Source string
	// Kind is one of the variables of this package.
	Kind error
	// Err is the cause. It may be nil.
	Err error
}

func (e *Error) Error() string {
	text := e.Op + " " + e.Source
	for _, err := range e.Unwrap() {
		text += ": " + err.Error()
	}
	text = redact.Text(text)
	tip := advice[e.Kind]
	if limit := new(limitError); errors.As(e.Err, &limit) && limit.fixed {
		tip = advice[ErrAnswer]
	}
	if tip != "" {
		text += " (" + tip + ")"
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// newError returns the error of a request. The end of a context is no error of
// the API's, so it is returned as it is.
func newError(ctx context.Context, op, source string, kind, err error) error {
	if err := wait.Err(ctx); err != nil {
		return err
	}
	return &Error{Op: op, Source: source, Kind: kind, Err: err}
}
