// Package redact makes foreign text and errors fit to be shown: without secrets,
// on one line, of bounded length.
package redact

import (
	"net/url"
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
	// urls are the beginnings of URLs: a scheme, a user with a password, and the
	// host with a path of harmless characters. What signs a URL comes after it.
	urls = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^\s"'/?#]*@)?([A-Za-z0-9._~:/%\[\]@!$&()*+,=…-]*)`)
	})
	// queries are query strings after what is not a URL.
	queries = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?[^\s…]\S*[^\s"':;,.)\]}]|\?[^\s"':;,.)\]}…]`) })
	// users are a user and password before a host, or a tag before a digest.
	users = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^\s"'@]*:[^\s"'@]*@`) })
	// digests distinguishes the one from the other.
	digests = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(sha\d|[A-Za-z0-9+._-]+:[0-9a-fA-F]{32})`) })
	// bodies are what go-containerregistry appends when a token server's answer
	// has no token, and what it appends when a credential helper fails: either
	// may contain a secret.
	bodies = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("(?s)(bearer response:|out: `).*") })
)

// Text returns s with no more of URLs than their scheme, host and path, without
// a user and password before a host and without what go-containerregistry quotes
// of token servers and credential helpers, on one line, cut after [MaxText].
// Characters that are not graphic become spaces: otherwise a server could make its
// answer look like several lines of a log, or like a command to the runner that
// prints it.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(unsigned(s), "?"))
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + "…"
	}
	return s
}

// unsigned removes what may be a secret whatever it is.
func unsigned(s string) string {
	s = bodies().ReplaceAllString(s, hidden)
	var out strings.Builder
	for {
		at := urls().FindStringSubmatchIndex(s)
		if at == nil {
			break
		}
		out.WriteString(withoutUsers(s[:at[0]]))
		out.WriteString(s[at[2]:at[3]] + s[at[6]:at[7]])
		rest := s[at[1]:]
		if rest != "" && strings.IndexByte("?#;'", rest[0]) >= 0 {
			out.WriteString("?…")
			rest = rest[endOfURL(rest, at[0] > 0 && s[at[0]-1] == '"'):]
		}
		s = rest
	}
	out.WriteString(withoutUsers(s))
	return out.String()
}

// endOfURL returns where a URL ends that began in quotes or without. A signature
// may have quotes and spaces in it, so one without quotes ends with the text, and a
// quote is the last one if no word begins after it.
func endOfURL(s string, quoted bool) int {
	if strings.HasPrefix(s, "?…") {
		return len("?…") // done already
	}
	for i := 0; quoted && i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '"' && (i+1 == len(s) || strings.IndexByte(":,;.)]} \n", s[i+1]) >= 0):
			return i
		}
	}
	return len(s)
}

func withoutUsers(s string) string {
	s = queries().ReplaceAllString(s, "?…")
	var out strings.Builder
	for at := 0; ; {
		found := users().FindStringIndex(s[at:])
		if found == nil {
			return out.String() + s[at:]
		}
		end := at + found[1]
		if digests().MatchString(s[end:]) {
			out.WriteString(s[at:end])
		} else {
			out.WriteString(s[at:at+found[0]] + hidden + "@")
		}
		at = end
	}
}

// Error returns an error whose text is that of [Text]. Each error that it wraps
// may be shown too: one that contains a secret is replaced by its redacted text
// and loses its type, but what it wraps can still be found. Of the URL of a
// [url.Error] the scheme and host are left: it may be where a server redirected to.
func Error(err error) error { return (*Secrets)(nil).Error(err) }

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
	case *redacted:
		if s.replace(e.text) == e.text {
			return err, false
		}
		causes = slices.Clone(e.causes)
	case interface{ Unwrap() error }:
		causes = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = slices.Clone(e.Unwrap())
	}
	causes = slices.DeleteFunc(causes, func(cause error) bool { return cause == nil })
	text := err.Error()
	for i, cause := range causes {
		clean, was := s.redacted(cause)
		if was {
			// In place of what the outer error quotes of the inner one: there a URL
			// may end anywhere.
			text = strings.ReplaceAll(text, cause.Error(), clean.Error())
			causes[i], unsafe = clean, true
		}
	}
	if of, ok := err.(*url.Error); ok {
		if unsafe = true; of.Op == "parse" || len(causes) == 0 {
			return &redacted{"malformed URL", nil}, true // the cause quotes some of it
		}
		text = of.Op + " " + origin(of.URL) + ": " + causes[0].Error()
	}
	if !unsafe && s.replace(text) == text && unsigned(text) == text {
		return err, false
	}
	return &redacted{s.Text(text), causes}, true
}

// origin returns the scheme and host of a URL.
func origin(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "a URL"
	}
	return u.Scheme + "://" + u.Host
}

// redacted stands for an error whose text must not be shown as it is.
type redacted struct {
	text   string
	causes []error
}

func (e *redacted) Error() string   { return e.text }
func (e *redacted) Unwrap() []error { return e.causes }
