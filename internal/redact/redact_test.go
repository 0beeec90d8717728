package redact

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"":     "",
		"text": "text",
		"is it \"https://host/path?sig=secret&x=y\": no": "is it \"https://host/path?…\": no",
		"is it so? yes?": "is it so? yes?",
		"one\r\n::error::two\u2028three\u202efour\x1b": "one  ::error::two three four ",
		"\xff": "?",
		"unmarshal bearer response: {\n\"x\":\"secret\"}": "unmarshal (not shown)",
		"exit status 1: out: `secret`":                    "exit status 1: (not shown)",
		"see /path?sig=secret.":                           "see /path?….",
		"see /path?sig='secret\", that":                   "see /path?…\", that",
		"see (http://host/path), or https://host:5/p?":    "see (http://host/path), or https://host:5/p?…",
		// A signature may come after anything.
		`"https://host/path?a='secret": no`:            `"https://host/path?…": no`,
		`"https://host/path?a=\"secret": no`:           `"https://host/path?…": no`,
		`"https://host/path?a="secret": no`:            `"https://host/path?…": no`,
		`"https://host/path?a= secret": no`:            `"https://host/path?…": no`,
		`"https://host/path;secret?x": no`:             `"https://host/path?…": no`,
		`"https://host/path#secret": no`:               `"https://host/path?…": no`,
		`"https://host/path'secret": no`:               `"https://host/path?…": no`,
		"https://host/path?a='secret secret":           "https://host/path?…",
		"https://host/path?a=\"secret\" secret":        "https://host/path?…",
		"https://host/path;secret, secret":             "https://host/path?…",
		"https://host/path?… and https://host/?secret": "https://host/path?… and https://host/?…",
		// A user and password, or a tag and a digest.
		"https://user:secret@host/path":                 "https://host/path",
		"docker://secret@host/path":                     "docker://host/path",
		"parse user:secret@host/image:tag: no":          "parse (not shown)@host/image:tag: no",
		"user:sec/ret@host:5/image@sha256:0123":         "(not shown)@host:5/image@sha256:0123",
		"host:5/image:tag@sha512:0123, a@b.example":     "host:5/image:tag@sha512:0123, a@b.example",
		"image:tag@x:0123456789abcdef0123456789abcdef0": "image:tag@x:0123456789abcdef0123456789abcdef0",
		strings.Repeat("x", 5000):                       strings.Repeat("x", MaxText) + "…",
		strings.Repeat("x", MaxText-1) + "ä":            strings.Repeat("x", MaxText-1) + "…",
	} {
		assert.Equal(t, want, Text(text))
	}
}

type typed struct{ text string }

func (e *typed) Error() string { return e.text }

// An error with a secret is replaced wherever it is in the tree, so that none
// that can be reached shows it; what has no secret can still be found.
func TestError(t *testing.T) {
	plain := errors.New("plain")
	assert.Same(t, plain, Error(plain))
	require.NoError(t, Error(nil))

	quoting := fmt.Errorf("outer: %w", errors.Join(&typed{"GET https://host/?sig=secret"}, fmt.Errorf("end: %w", io.EOF)))
	err := Error(quoting)
	assert.NotContains(t, strings.Join(texts(err), "\n"), "secret")
	require.ErrorIs(t, err, io.EOF)
	var found *typed
	assert.NotErrorAs(t, err, &found)
	assert.Same(t, err, Error(err), "it is safe already")

	// What quotes an error is not known by its form.
	of := &url.Error{Op: "Get", URL: "https://host/path/secret?secret\" secret", Err: io.ErrUnexpectedEOF}
	err = Error(fmt.Errorf("1: %w", fmt.Errorf("2: %w (quoted)", of)))
	assert.EqualError(t, err, "1: 2: Get https://host: unexpected EOF (quoted)")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.NotContains(t, strings.Join(texts(err), "\n"), "secret")
	_, malformed := (&url.URL{}).Parse("https://host/%zzsecret:x")
	assert.EqualError(t, Error(malformed), "malformed URL")
	assert.EqualError(t, Error(&url.Error{Op: "Get", URL: "secret", Err: io.EOF}), "Get a URL: EOF")

	lines := &typed{"one\ntwo"}
	err = Error(lines)
	assert.EqualError(t, err, "one two")
	require.ErrorAs(t, err, &found, "there is no secret in it")
}

func texts(err error) []string {
	all := []string{err.Error()}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		all = append(all, texts(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			all = append(all, texts(cause)...)
		}
	}
	return all
}

func TestSecrets(t *testing.T) {
	var notified []string
	s := &Secrets{Notify: func(v string) { notified = append(notified, v) }}
	s.Add("password", "", "password")
	s.Add("password-and-more")
	assert.Equal(t, []string{"password", "password-and-more"}, notified, "each once, the empty one never")
	assert.Equal(t, "(not shown), (not shown)", s.Text("password-and-more, password"), "nothing of the longer one is left")

	plain := errors.New("plain")
	assert.Same(t, plain, s.Error(plain))
	quoting := &typed{"value 'password'"}
	err := s.Error(fmt.Errorf("outer: %w", quoting))
	assert.EqualError(t, err, "outer: value '(not shown)'")
	var found *typed
	assert.NotErrorAs(t, err, &found, "it could be asked for its text")
}

// Nil and the zero value work.
func TestNoSecrets(t *testing.T) {
	for _, s := range []*Secrets{nil, {}} {
		s.Add("secret")
		assert.Equal(t, "plain", s.Text("plain"))
		require.NoError(t, s.Error(nil))
	}
	assert.Equal(t, "secret", (*Secrets)(nil).Text("secret"))
	assert.Equal(t, "(not shown)", func() string { s := &Secrets{}; s.Add("secret"); return s.Text("secret") }())
}

// Of many goroutines with the same secret none gets on before it was reported.
func TestNotifyComesFirst(t *testing.T) {
	notified := false // under the lock of Secrets
	s := &Secrets{Notify: func(string) { notified = true }}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			s.Add("secret")
			s.mu.Lock()
			defer s.mu.Unlock()
			assert.True(t, notified)
		})
	}
	group.Wait()
}
