// Package redact makes foreign text and errors fit to be shown in logs: without
// secrets, on one line, of bounded length.
package redact

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// MaxText is the limit on the length of a text, in bytes. The mark of what was
// cut comes on top.
const MaxText = 1000

// hidden replaces a secret.
const hidden = "(not shown)"

var (
	// queries are the query strings of URLs: they sign the URLs of blob storage.
	queries = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?[^\s"']+`) })
	// bodies are what go-containerregistry appends when a token server's answer
	// has no token, and what it appends when a credential helper fails: either
	// may contain a secret.
	bodies = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("(?s)(bearer response:|out: `).*") })
)

// Text returns s without query strings of URLs and without what
// go-containerregistry quotes of token servers and credential helpers, on one
// line, cut after [MaxText]. Characters that are not graphic become spaces:
// otherwise a server could make its answer look like several lines of a log, or
// like a command to the runner that prints it.
func Text(s string) string {
	s = bodies().ReplaceAllString(s, hidden)
	s = queries().ReplaceAllString(s, "?…")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + "…"
	}
	return s
}

// Error returns an error whose text is that of [Text]. Each error that it wraps
// may be shown too: one that contains a secret is replaced by its redacted text
// and loses its type, but what it wraps can still be found.
func Error(err error) error { return (*Secrets)(nil).Error(err) }

// Secrets are the secrets that are known so far. Servers quote them: a
// validation error has the value that was refused. The zero value has none and
// can be used; so can nil, which keeps none. It is safe for concurrent use.
type Secrets struct {
	// Notify is called with each secret once, before Add returns, by one
	// goroutine at a time. It must not call a method of these Secrets. Default:
	// no call.
	Notify func(string)

	mu   sync.Mutex
	seen []string // the longest first, since one may contain another
}

// Add adds secrets. Empty ones are ignored.
func (s *Secrets) Add(secrets ...string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range secrets {
		if v == "" || slices.Contains(s.seen, v) {
			continue
		}
		s.seen = append(s.seen, v)
		slices.SortStableFunc(s.seen, func(a, b string) int { return len(b) - len(a) })
		if s.Notify != nil {
			s.Notify(v) // under the lock: another goroutine with the same secret must not use it before
		}
	}
}

// Text is the function [Text], and replaces all known secrets.
func (s *Secrets) Text(text string) string { return Text(s.replace(text)) }

func (s *Secrets) replace(text string) string {
	if s == nil {
		return text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.seen {
		text = strings.ReplaceAll(text, v, hidden)
	}
	return text
}

// Error is the function [Error], and treats all known secrets alike. Nil stays
// nil.
func (s *Secrets) Error(err error) error {
	if err == nil {
		return nil
	}
	err, _ = s.redacted(err)
	if text := s.Text(err.Error()); text != err.Error() { // several lines, or too long
		return &redacted{text, []error{err}}
	}
	return err
}

// redacted replaces each error of a tree whose text contains a secret, and
// reports whether there was one.
func (s *Secrets) redacted(err error) (_ error, unsafe bool) {
	var causes []error
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		causes = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = slices.Clone(e.Unwrap())
	}
	causes = slices.DeleteFunc(causes, func(cause error) bool { return cause == nil })
	text := err.Error()
	unsafe = queries().MatchString(strings.ReplaceAll(text, "?…", "")) || bodies().MatchString(text) || s.replace(text) != text
	for i := range causes {
		cause, was := s.redacted(causes[i])
		causes[i], unsafe = cause, unsafe || was
	}
	if !unsafe {
		return err, false
	}
	return &redacted{s.Text(text), causes}, true
}

// redacted stands for an error whose text must not be shown as it is.
type redacted struct {
	text   string
	causes []error
}

func (e *redacted) Error() string   { return e.text }
func (e *redacted) Unwrap() []error { return e.causes }
