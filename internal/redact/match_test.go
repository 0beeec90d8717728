package redact

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func inJSON(s string) string {
	b, _ := json.Marshal(s) // a string: cannot fail
	return string(b[1 : len(b)-1])
}

func lowerEscapes(s string) string {
	for i := 0; i+2 < len(s); i++ {
		if s[i] == '%' {
			s = s[:i] + strings.ToLower(s[i:i+3]) + s[i+3:]
		}
	}
	return s
}

// A secret is found in every form that it is sent in, and in quotes around it.
func TestSecretsInEachForm(t *testing.T) {
	ascii := func(s string) string { q := strconv.QuoteToASCII(s); return q[1 : len(q)-1] }
	forms := map[string]func(string) string{
		"raw":               func(s string) string { return s },
		"upper case":        strings.ToUpper,
		"lower case":        strings.ToLower, // mime.ParseMediaType
		"query":             url.QueryEscape,
		"path":              url.PathEscape,
		"query of query":    func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
		"path of query":     func(s string) string { return url.PathEscape(url.QueryEscape(s)) },
		"lower-case query":  func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
		"JSON":              inJSON,
		"HTML":              html.EscapeString,
		"base64":            func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64 for URLs":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
		"with its user":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + s)) },
		"raw with its user": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("user:" + s)) },
	}
	quotes := map[string]func(string) string{
		"nothing": forms["raw"], "%q": quoted, "%+q": ascii,
		"%q of %q": func(s string) string { return quoted(quoted(s)) }, "%q of JSON": func(s string) string { return quoted(inJSON(s)) },
	}
	for _, secret := range []string{"s3cr", "hunter22", `a "b" \c\\ 'd'/e`, "p%41ss%25w%rd+ &x<y>=", "päß wörd\x00\t\n\u2028\U0001F511", `\u0041\n`, "\xff\xfe\xfd\xfc\xfb", strings.Repeat("x", 17), "%%%%", `\\\\`} {
		s := &Secrets{}
		s.AddLogin("user", secret)
		for name, form := range forms {
			if name == "JSON" && !utf8.ValidString(secret) {
				continue // JSON has no form for it
			}
			for quote, in := range quotes {
				if name == "HTML" && quote == "%q of JSON" {
					continue // the signs of HTML would be escaped: no answer is shown before JSON is decoded
				}
				text := strings.TrimRight(in(form(secret)), "=")
				assert.Equal(t, "it is (not shown)|", s.Text("it is "+text+"|"), "%q in %s of %s: %q", secret, quote, name, text)
			}
		}
	}
}

// A text that is as bad as it can be takes no longer than others.
func TestHostileTexts(t *testing.T) {
	s := &Secrets{}
	s.Add("\\\\x\\y", "25252525x", "hunter22")
	for _, text := range []string{strings.Repeat(`\`, 1<<20), "%" + strings.Repeat("25", 1<<19), strings.Repeat("https://", 1<<17), strings.Repeat("?", 1<<20), strings.Repeat("a:b@", 1<<18)} {
		assert.LessOrEqual(t, len(s.Text("hunter22"+text)), MaxText+len("…"))
		assert.NotContains(t, s.Error(errors.New(text+"hunter22")).Error(), "hunter22")
	}
}

// A server may give tokens, and echo them, so that there are very many ways to find one
// in a text: what would take too long to search is not shown. Of what is usual, all is.
func TestHostileSecrets(t *testing.T) {
	s := &Secrets{}
	for i := range most - 1 {
		s.Hide(fmt.Sprint("eyJhbGciOiJIUzI1NiJ9", i), strings.Repeat(`\`, 100+i%10))
	}
	s.Add("hunter22")
	assert.Regexp(t, `^it is (\(not shown\))+$`, s.Text("it is "+strings.Repeat(`\`, 8*MaxText)+" hunter22"))
	usual := strings.Repeat("resolve docker.io/library/debian:eye: ", 25)
	assert.Equal(t, usual+"(not shown)", s.Text(usual+"HUNTER22"))
}
