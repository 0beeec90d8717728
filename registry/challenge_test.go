package registry

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestChallenges(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  []challenge
	}{
		{nil, nil},
		{[]string{"", " , "}, nil},
		{[]string{"Basic"}, []challenge{{"basic", map[string]string{}}}},
		{[]string{`BASIC realm="a b", charset=UTF-8`}, []challenge{{"basic", map[string]string{"realm": "a b", "charset": "UTF-8"}}}},
		{[]string{`Bearer realm="https://a/t?x=1,y",service="a \"b\"",scope="repository:x:pull"`},
			[]challenge{{"bearer", map[string]string{"realm": "https://a/t?x=1,y", "service": `a "b"`, "scope": "repository:x:pull"}}}},
		{[]string{`Negotiate, Basic realm="x", Bearer realm=y`}, []challenge{{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}}},
		{[]string{"Negotiate YII==", `Bearer Realm = "y" , Service="z"`}, []challenge{{"bearer", map[string]string{"realm": "y", "service": "z"}}}},
		{[]string{`Negotiate YII==, Basic realm="x"`}, []challenge{{"basic", map[string]string{"realm": "x"}}}},
		{[]string{`Negotiate Y/I+I=, Basic realm="x"`}, []challenge{{"basic", map[string]string{"realm": "x"}}}},
		{[]string{`NTLM TlRM, Digest realm="a, Basic b", nonce="=", Bearer realm="y"`}, []challenge{{"bearer", map[string]string{"realm": "y"}}}},
		{[]string{`Bearer realm=https://a/basic,service=x, Basic`}, []challenge{{"bearer", map[string]string{"realm": "https", "service": "x"}}, {"basic", map[string]string{}}}},
		{[]string{`Bearer realm="unterminated`}, []challenge{{"bearer", map[string]string{"realm": "unterminated"}}}},
		{[]string{`="x"`, `"`, "Bearer ="}, []challenge{{"bearer", map[string]string{}}}},
	} {
		resp := &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": c.lines}}
		assert.Equal(t, c.want, challengesOf(resp), c.lines)
		resp.StatusCode = http.StatusForbidden
		assert.Empty(t, challengesOf(resp))
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="a",service=b, Basic`)
	f.Fuzz(func(_ *testing.T, line string) { parseChallenges(line) })
}
