package registry

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// A challenge is a scheme of authentication that a registry offers, in lower case,
// with its parameters.
type challenge struct {
	scheme     string
	parameters map[string]string
}

// challengesOf returns what an answer with status 401 offers and this package knows,
// in order. The form is that of RFC 9110, section 11.6.1: several in one line or
// each in its own. What is in no such form is passed over up to the next comma.
func challengesOf(resp *http.Response) (found []challenge) {
	if resp.StatusCode != http.StatusUnauthorized {
		return nil
	}
	for _, line := range resp.Header.Values("WWW-Authenticate") {
		found = append(found, parseChallenges(line)...)
	}
	return found
}

func parseChallenges(line string) (found []challenge) {
	var current *challenge
	for {
		line = strings.TrimLeft(line, " \t,")
		word := line[:len(line)-len(strings.TrimLeftFunc(line, isTokenChar))]
		if word == "" {
			_, after, more := strings.Cut(line, ",")
			if !more {
				break
			}
			line = after
			continue
		}
		rest := strings.TrimLeft(line[len(word):], " \t")
		value, isParameter := strings.CutPrefix(rest, "=")
		if !isParameter || current == nil {
			found = append(found, challenge{strings.ToLower(word), map[string]string{}})
			current = &found[len(found)-1]
			line = rest
			continue
		}
		value = strings.TrimLeft(value, "= \t") // "==" ends the one value of a scheme such as Negotiate
		var text string
		if strings.HasPrefix(value, `"`) {
			text, line = unquote(value)
		} else {
			text = value[:len(value)-len(strings.TrimLeftFunc(value, isTokenChar))]
			line = value[len(text):]
		}
		current.parameters[strings.ToLower(word)] = text
	}
	known := found[:0]
	for _, c := range found {
		if c.scheme == "bearer" || c.scheme == "basic" {
			known = append(known, c)
		}
	}
	return known
}

func isTokenChar(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// unquote reads a text in quotes, and returns what is after it.
func unquote(s string) (text, rest string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// A greeting is what a registry answers to GET /v2/.
type greeting struct {
	insecure   bool        // over plain HTTP
	challenges []challenge // none if it needs no credential, or if it redirects elsewhere
}

// greet asks a registry for GET /v2/, over HTTPS and, where that is allowed, plain
// HTTP.
func greet(ctx context.Context, registry name.Registry, inner http.RoundTripper) (*greeting, error) {
	g := &greeter{inner: inner, host: registry.RegistryStr(), challenges: map[string][]challenge{}}
	c, err := transport.Ping(ctx, registry, g)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	scheme := "https"
	if c.Insecure {
		scheme = "http"
	}
	return &greeting{c.Insecure, g.challenges[scheme]}, nil
}

// A greeter keeps the challenges of the registry itself. A registry that redirects
// elsewhere wants no credential there: where its redirects lead is asked, without
// one, by the requests that are redirected.
type greeter struct {
	inner http.RoundTripper
	host  string

	mu         sync.Mutex
	challenges map[string][]challenge // by the scheme of the URL
}

func (g *greeter) RoundTrip(req *http.Request) (*http.Response, error) {
	req.Header.Del("Referer")
	resp, err := g.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if to, err := resp.Location(); err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400 && to.Host != g.host {
		resp.StatusCode = http.StatusOK
		return resp, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.challenges[req.URL.Scheme] = challengesOf(resp)
	return resp, nil
}
