package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log/slog"
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

// A text may be cut within a secret, and two may share a part of it.
func TestSecretsThatAreCutOrOverlap(t *testing.T) {
	s := &Secrets{}
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
	s.Add(token, "abcdef", "defghi", "ghi", "password", "password-and-more", "shown", "(not")
	for text, want := range map[string]string{
		fmt.Sprintf("%.30q", "Bearer "+token): `"Bearer (not shown)"`,
		token[:enough-1]:                      token[:enough-1], // nothing of worth
		"xabcdefghix":                         "x(not shown)x",  // nothing of either is left
		"defghi abcdef":                       "(not shown) (not shown)",
		"abcdefabcdef":                        "(not shown)(not shown)",
		"password-and-more, password":         "(not shown), (not shown)",
		"the ghi":                             "the ghi", // shorter than any that is looked for
		"it is shown":                         "it is (not shown)",
	} {
		assert.Equal(t, want, s.Text(text))
		assert.Equal(t, want, s.Text(s.Text(text)))
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

// A handler of a log leaves no secret in anything that is logged.
func TestHandler(t *testing.T) {
	var out bytes.Buffer
	s := &Secrets{}
	s.Add("hunter22")
	log := slog.New(s.Handler(slog.NewTextHandler(&out, nil))).With("first", "hunter22").WithGroup("g")
	log.Info("it is hunter22", "text", "hunter22", "error", fmt.Errorf("x: %w", errors.New("hunter22")), slog.Group("group", "in", "hunter22"),
		"list", []string{"hunter22"}, "number", 5, "other", struct{ V int }{7}, "valuer", valuer{})
	assert.NotContains(t, out.String(), "hunter22")
	assert.Equal(t, 7, strings.Count(out.String(), "(not shown)"))
	assert.Contains(t, out.String(), "g.number=5 g.other={V:7}")
}

type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.StringValue("hunter22") }

// A text that is as bad as it can be takes no longer than others.
func TestHostileTexts(t *testing.T) {
	s := &Secrets{}
	s.Add("\\\\x\\y", "25252525x", "hunter22")
	for _, text := range []string{strings.Repeat(`\`, 1<<20), "%" + strings.Repeat("25", 1<<19), strings.Repeat("https://", 1<<17), strings.Repeat("?", 1<<20), strings.Repeat("a:b@", 1<<18)} {
		assert.LessOrEqual(t, len(s.Text("hunter22"+text)), MaxText+len("…"))
		assert.NotContains(t, s.Error(errors.New(text+"hunter22")).Error(), "hunter22")
	}
}
