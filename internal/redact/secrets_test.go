package redact

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A text may be cut within a secret, and two may share a part of it.
func TestSecretsThatAreCutOrOverlap(t *testing.T) {
	s := &Secrets{}
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
	s.Add(token, "abcdef", "defghi", "ghi", "password", "password-and-more", "shown", "(not", "verylongpassword1+x")
	for text, want := range map[string]string{
		fmt.Sprintf("%.30q", "Bearer "+token): `"Bearer (not shown)"`,
		token[:enough-1]:                      token[:enough-1], // nothing of worth
		"xabcdefghix":                         "x(not shown)x",  // nothing of either is left
		"defghi abcdef":                       "(not shown) (not shown)",
		"abcdefabcdef":                        "(not shown)(not shown)",
		"password-and-more, password":         "(not shown), (not shown)",
		"a password-xyz, a passwords":         "a (not shown)xyz, a (not shown)s",
		"verylongpassw":                       "verylongpassw", // only letters, as words have
		"verylongpassword":                    "(not shown)",
		"Verylongpassword1 ":                  "(not shown) ",
		"the ghi":                             "the ghi", // shorter than any that is looked for
		"it is shown":                         "it is (not shown)",
	} {
		assert.Equal(t, want, s.Text(text))
		assert.Equal(t, want, s.Text(s.Text(text)))
	}
}

// What begins as ordinary texts do is found if all of it is there.
func TestHideWhole(t *testing.T) {
	s := &Secrets{}
	s.HideWhole("/actions/runs/artifacts", "password-and-more")
	s.Add("password-and-more")
	s.HideWhole("password-and-more")
	for text, want := range map[string]string{
		"/actions/runs/5":               "/actions/runs/5",
		"x/actions/runs/artifacts":      "x(not shown)",
		"%2Factions%2Fruns%2Fartifacts": "(not shown)",
		"password-and-mo":               "(not shown)", // a secret by itself too
	} {
		assert.Equal(t, want, s.Text(text))
	}
}

// A password that is in every word leaves the texts as they are, but not what it is
// sent as.
func TestShortSecrets(t *testing.T) {
	for _, password := range []string{"a", "to", "the"} {
		var notified []string
		s := &Secrets{Notify: func(v string) { notified = append(notified, v) }}
		s.AddLogin("user", password)
		sent := base64.StdEncoding.EncodeToString([]byte("user:" + password))
		assert.Equal(t, "a way to the end: (not shown)", s.Text("a way to the end: "+sent))
		assert.Equal(t, []string{password, sent}, notified)
	}
}

// Hidden secrets are not notified of, and those that are sent again are kept.
func TestSecretsAreBounded(t *testing.T) {
	var notified []string
	s := &Secrets{Notify: func(v string) { notified = append(notified, v) }}
	s.Add("password")
	for i := range 2 * most {
		s.Hide(fmt.Sprint("token-", i, "."))
		s.Add("password")
	}
	assert.Equal(t, []string{"password"}, notified)
	assert.Len(t, s.known, most)
	assert.Equal(t, "(not shown) (not shown) token-7.", s.Text(fmt.Sprint("password token-", 2*most-1, ". token-7.")))
}
