package redact

import (
	"context"
	"encoding/base64"
	"fmt"
	"html"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// shortest is the length of the shortest secret that is looked for, in bytes. A
	// shorter one is in every other word: without it no text could be read, and
	// what is missing would betray it.
	shortest = 4
	// enough is how many bytes from its beginning on stand for a secret: a text may
	// have been cut in the middle of one.
	enough = 16
	// most is how many secrets are kept. Those that are sent again stay; the tokens
	// before so many are not good any more.
	most = 1000
)

// Secrets are the secrets that were sent so far. Servers quote them: a validation
// error has the value that was refused, and a hostile server has what it was sent
// in its headers. They are found in each form that a server or a formatter gives
// them: in upper and lower case, in base64, with the escapes of URLs, also several
// times over, of JSON, of HTML, and of Go's quotes around any of these. The zero
// value has none and can be used; so can nil, which keeps none. It is safe for
// concurrent use.
//
// A secret of 1 to 3 bytes is found only in base64 together with its user. The
// last 1000 secrets are kept.
type Secrets struct {
	// Notify is called with each secret once, before Add returns, by one
	// goroutine at a time. It must not call a method of these Secrets. Default:
	// no call.
	Notify func(string)

	mu    sync.Mutex
	known []*secret // the one that was added last at the end
}

type secret struct {
	value    string
	forms    []string
	notified bool
}

// Add adds secrets before they are sent, and calls Notify. Empty ones are ignored.
func (s *Secrets) Add(secrets ...string) { s.add(true, secrets) }

// Hide is Add without a call of Notify, for what a CI system need not mask.
func (s *Secrets) Hide(secrets ...string) { s.add(false, secrets) }

// AddLogin adds a password and the base64 in which it is sent with its user, as
// HTTP's Basic authentication does (RFC 7617).
func (s *Secrets) AddLogin(user, password string) {
	if password == "" {
		return
	}
	s.Add(password, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	s.Hide(base64Forms(user + ":" + password)...)
}

func base64Forms(text string) []string {
	var forms []string
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		forms = append(forms, e.EncodeToString([]byte(text)))
	}
	return forms
}

func (s *Secrets) add(notify bool, secrets []string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range secrets {
		if v == "" {
			continue
		}
		one := &secret{value: v}
		if at := slices.IndexFunc(s.known, func(k *secret) bool { return k.value == v }); at >= 0 {
			one = s.known[at]
			s.known = slices.Delete(s.known, at, at+1)
		} else if len(v) >= shortest {
			one.forms = append(base64Forms(v), v)
		}
		s.known = append(s.known, one)
		s.known = slices.Delete(s.known, 0, max(0, len(s.known)-most))
		if notify && s.Notify != nil && !one.notified {
			one.notified = true
			s.Notify(v) // under the lock: another goroutine with the same secret must not use it before
		}
	}
}

// Text is the function [Text], and replaces all known secrets.
func (s *Secrets) Text(text string) string { return Text(s.replace(text)) }

// replace replaces all that belongs to a secret: where two overlap, or one contains
// another, nothing is left of either.
func (s *Secrets) replace(text string) string {
	if s == nil {
		return text
	}
	text = text[:min(len(text), 8*MaxText)] // no more is shown
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	end := 0 // of the secret that was found last
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], hidden) && i >= end {
			out.WriteString(hidden) // may be like a secret, but is none
			i += len(hidden) - 1
			continue
		}
		longest := i
		for _, one := range s.known {
			for _, form := range one.forms {
				longest = max(longest, match(text, i, form))
			}
		}
		if longest > i && i >= end {
			out.WriteString(hidden)
		}
		if end = max(end, longest); i >= end {
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

// match returns where a secret ends that begins at a place in a text, in any form;
// -1 if none does.
func match(text string, at int, secret string) int {
	if first := text[at]; lower(first) != lower(secret[0]) && first < utf8.RuneSelf && strings.IndexByte(`%&+\`, first) < 0 {
		return -1 // soon
	}
	ends := []int{at} // after so much of the secret
	for matched := 0; matched < len(secret); {
		_, n := utf8.DecodeRuneInString(secret[matched:])
		var next []int
		for _, i := range ends {
			next = appendEnds(next, text, i, secret[matched:matched+n])
		}
		if len(next) == 0 {
			if matched < enough {
				return -1
			}
			break
		}
		slices.Sort(next)
		next = slices.Compact(next)
		ends, matched = next[:min(len(next), 32)], matched+n // more there are in hostile texts only
	}
	return slices.Max(ends)
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}

// appendEnds appends where a character ends that begins at i, for each form in
// which it may be there.
func appendEnds(ends []int, text string, i int, char string) []int {
	if i >= len(text) {
		return ends
	}
	if n := len(char); len(text)-i >= n && strings.EqualFold(text[i:i+n], char) {
		ends = append(ends, i+n)
	}
	switch text[i] {
	case '+':
		if char == " " {
			ends = append(ends, i+1)
		}
	case '%':
		ends = appendEscaped(ends, text, i, char, percent)
	case '&':
		if n := strings.IndexByte(text[i:min(len(text), i+10)], ';') + 1; n > 0 && html.UnescapeString(text[i:i+n]) == char {
			ends = append(ends, i+n)
		}
	case '\\':
		ends = appendQuoted(ends, text, i, char)
	}
	return ends
}

// appendQuoted is appendEnds for a character behind backslashes. Each level of
// quoting doubles them.
func appendQuoted(ends []int, text string, i int, char string) []int {
	ends = appendEscaped(ends, text, i, char, backslash)
	for begin := i; i < len(text) && text[i] == '\\' && i < begin+16; {
		if i++; char == `\` {
			ends = append(ends, i)
		}
	}
	rest := text[i:]
	if strings.HasPrefix(rest, char) {
		ends = append(ends, i+len(char))
	}
	if rest == "" {
		return ends
	}
	if at := strings.IndexByte("abfnrtv", rest[0]); at >= 0 && char == "\a\b\f\n\r\t\v"[at:at+1] {
		ends = append(ends, i+1)
	}
	if r, n := unicodeEscape(rest); n > 0 {
		if r2, m := unicodeEscape(strings.TrimLeft(rest[n:], `\`)); m > 0 && utf16.IsSurrogate(r) {
			r, n = utf16.DecodeRune(r, r2), n+m+(len(rest[n:])-len(strings.TrimLeft(rest[n:], `\`)))
		}
		if strings.EqualFold(string(r), char) {
			ends = append(ends, i+n)
		}
	}
	return ends
}

// unicodeEscape reads the escape u0000 or U00000000 and returns its length; 0 if
// there is none.
func unicodeEscape(s string) (rune, int) {
	for prefix, digits := range map[string]int{"u": 4, "U": 8} {
		if strings.HasPrefix(s, prefix) && len(s) > digits {
			if v, err := strconv.ParseUint(s[1:1+digits], 16, 32); err == nil && v <= utf8.MaxRune {
				return rune(v), 1 + digits
			}
		}
	}
	return 0, 0
}

// appendEscaped is appendEnds for a character whose bytes are each written as two
// hexadecimal digits behind a prefix, of one length or another.
func appendEscaped(ends []int, text string, i int, char string, prefixes func(string) []int) []int {
	if char == "" {
		return append(ends, i)
	}
	for _, n := range prefixes(text[i:]) {
		if len(text) < i+n+2 {
			continue
		}
		v, err := strconv.ParseUint(text[i+n:i+n+2], 16, 8)
		if err == nil && (lower(byte(v)) == lower(char[0]) || v == '+' && char == " ") {
			ends = appendEscaped(ends, text, i+n+2, char[1:], prefixes)
		}
	}
	return ends
}

// percent returns the lengths of the prefixes of a URL's escape. Each level escapes
// the sign once more.
func percent(s string) (lengths []int) {
	if strings.HasPrefix(s, "%") {
		lengths = append(lengths, 1)
		for n := 1; n < 16 && strings.HasPrefix(s[n:], "25"); n += 2 {
			lengths = append(lengths, n+2)
		}
	}
	return lengths
}

// backslash returns the length of the prefix of the escape \x00.
func backslash(s string) []int {
	s = s[:min(len(s), 18)]
	rest := strings.TrimLeft(s, `\`)
	if len(rest) == len(s) || !strings.HasPrefix(rest, "x") {
		return nil
	}
	return []int{len(s) - len(rest) + 1}
}

// Handler returns a handler of a log that takes the secrets out of messages,
// texts and errors before they reach inner.
func (s *Secrets) Handler(inner slog.Handler) slog.Handler { return &handler{inner, s} }

type handler struct {
	slog.Handler
	secrets *Secrets
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, h.secrets.Text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool { clean.AddAttrs(h.clean(a)); return true })
	return h.Handler.Handle(ctx, clean)
}

func (h *handler) clean(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(h.secrets.Text(a.Value.String()))
	case slog.KindGroup:
		group := slices.Clone(a.Value.Group())
		for i := range group {
			group[i] = h.clean(group[i])
		}
		a.Value = slog.GroupValue(group...)
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.AnyValue(h.secrets.Error(err))
		} else if text := fmt.Sprint(a.Value.Any()); h.secrets.Text(text) != text {
			a.Value = slog.StringValue(h.secrets.Text(text))
		}
	}
	return a
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		attrs[i] = h.clean(attrs[i])
	}
	return &handler{h.Handler.WithAttrs(attrs), h.secrets}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.secrets}
}
