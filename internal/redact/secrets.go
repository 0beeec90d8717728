package redact

import (
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// shortest is the length of the shortest secret that is looked for, in bytes. A
	// shorter one is in every other word: without it no text could be read, and
	// what is missing would betray it.
	shortest = 4
	// most is how many secrets are kept. Those that are sent again stay; the tokens
	// before so many are not good any more.
	most = 1000
	// effort is how many times a character of a secret is compared for one text. It
	// is enough for 1000 tokens and what is shown of a text; a hostile one, and
	// hostile tokens, could need any number.
	effort = 1 << 20
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
// last 1000 secrets are kept. What is left of a text that takes too long to search is
// not shown.
type Secrets struct {
	// Notify is called with each secret once, before Add returns, by one
	// goroutine at a time. It must not call a method of these Secrets. Default:
	// no call.
	Notify func(string)

	mu    sync.Mutex
	known []*secret         // the one that was added last at the end
	forms map[string][]form // of all that are known, by their first character; nil: not made yet
}

type secret struct {
	value           string
	forms           []string
	whole, notified bool
}

// A form of a secret is found by its beginning too, if not only the whole counts.
type form struct {
	text  string
	whole bool
}

// Add adds secrets before they are sent, and calls Notify. Empty ones are ignored.
func (s *Secrets) Add(secrets ...string) { s.add(true, false, secrets) }

// Hide is Add without a call of Notify, for what a CI system need not mask.
func (s *Secrets) Hide(secrets ...string) { s.add(false, false, secrets) }

// HideWhole is Hide for what begins as ordinary texts do, such as a path: it is found
// only if all of it is there.
func (s *Secrets) HideWhole(secrets ...string) { s.add(false, true, secrets) }

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

func (s *Secrets) add(notify, whole bool, secrets []string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range secrets {
		if v == "" {
			continue
		}
		one := &secret{value: v, whole: whole}
		if at := slices.IndexFunc(s.known, func(k *secret) bool { return k.value == v }); at >= 0 {
			one = s.known[at]
			one.whole = one.whole && whole
			s.known = slices.Delete(s.known, at, at+1)
		} else if len(v) >= shortest {
			one.forms = append(base64Forms(v), v)
		}
		s.known, s.forms = append(s.known, one), nil
		s.known = slices.Delete(s.known, 0, max(0, len(s.known)-most))
		if notify && s.Notify != nil && !one.notified {
			one.notified = true
			s.Notify(v) // under the lock: another goroutine with the same secret must not use it before
		}
	}
}

// Text is the function [Text], and replaces all known secrets.
func (s *Secrets) Text(text string) string { return Text(s.replace(text)) }

// index makes s.forms. The caller holds s.mu.
func (s *Secrets) index() {
	if s.forms != nil {
		return
	}
	s.forms = map[string][]form{}
	for _, one := range s.known {
		for _, text := range one.forms {
			_, n := utf8.DecodeRuneInString(text)
			s.forms[text[:n]] = append(s.forms[text[:n]], form{text, one.whole})
		}
	}
}

// replace replaces all that belongs to a secret: where two overlap, or one contains
// another, nothing is left of either.
func (s *Secrets) replace(text string) string {
	if s == nil {
		return text
	}
	text = text[:min(len(text), 8*MaxText)] // no more is shown
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index()
	var out strings.Builder
	left := effort
	end := 0 // of the secret that was found last
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], hidden) && i >= end {
			out.WriteString(hidden) // may be like a secret, but is none
			i += len(hidden) - 1
			continue
		}
		longest := i
		for first, forms := range s.forms {
			if !mayBegin(text, i, first) {
				continue
			}
			for _, form := range forms {
				longest = max(longest, match(text, i, form, &left))
			}
		}
		if left <= 0 {
			return out.String() + hidden
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
