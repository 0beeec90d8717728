package registrytest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// tokenPath is where a [Server] with [Quirks.Token] issues tokens.
const tokenPath = "/token"

// tokens are those that a [Server] issued: token-1-…, token-2-… and so on.
type tokens struct {
	issued  int
	texts   []string
	expired int          // all up to this one
	used    map[int]int  // how often, by number
	named   map[int]bool // those that were issued for a password
}

// TokensIssued returns how many tokens were issued so far.
func (s *Server) TokensIssued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.issued
}

// Tokens returns the tokens that were issued so far: secrets, which may be sent to
// this server alone and which no log line may show.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.tokens.texts...)
}

// ExpireTokens makes every token that was issued so far invalid.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.expired = s.tokens.issued
}

// admit reports whether a request has a token that is good, and counts its use.
func (s *Server) admit(r *http.Request, q Quirks) bool {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tokens
	number := slices.Index(t.texts, text) + 1
	if !ok || number <= t.expired || q.TokenUses > 0 && t.used[number] >= q.TokenUses {
		return false
	}
	if t.used == nil {
		t.used = map[int]int{}
	}
	t.used[number]++
	return true
}

// challenge names the token endpoint, in the form of
// https://distribution.github.io/distribution/spec/auth/token/.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s%s",service="registrytest"`, scheme, r.Host, tokenPath))
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request, q Quirks) {
	if !hasPassword(r, q) {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	s.mu.Lock()
	s.tokens.issued++
	if _, _, sent := r.BasicAuth(); sent {
		if s.tokens.named == nil {
			s.tokens.named = map[int]bool{}
		}
		s.tokens.named[s.tokens.issued] = true
	}
	token := fmt.Sprintf("token-%d-%s", s.tokens.issued, rand.Text())
	s.tokens.texts = append(s.tokens.texts, token)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	body, _ := json.Marshal(map[string]any{"token": token, "expires_in": 300}) // strings and numbers: cannot fail
	_, _ = w.Write(body)
}
