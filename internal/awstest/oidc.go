package awstest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// Audience is the one that ID tokens for AWS have.
const Audience = "sts.amazonaws.com"

// An idToken is one that was issued.
type idToken struct {
	audience string
	expires  time.Time
	used     bool
}

// newIDToken issues a JWT that looks like GitHub's, with a signature that
// only this server can verify.
func (s *Server) newIDToken(audience string, q Quirks) string {
	expires := s.now(q).Add(orElse(q.IDTokenLifetime, 5*time.Minute))
	part := func(v any) string {
		text, _ := json.Marshal(v) // strings and numbers: cannot fail
		return base64.RawURLEncoding.EncodeToString(text)
	}
	header := part(map[string]string{"typ": "JWT", "alg": "RS256", "kid": "awstest"})
	claims := part(map[string]any{
		"iss": "https://token.actions.githubusercontent.com", "aud": audience, "sub": "repo:pytorch/pytorch:ref:refs/heads/main",
		"exp": expires.Unix(), "iat": s.now(q).Unix(), "jti": s.next(),
	})
	signature := part("signature-" + rand.Text())
	token := s.note(header + "." + claims + "." + signature)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idTokens[token] = &idToken{audience: audience, expires: expires}
	return token
}

func (s *Server) serveOIDC(w http.ResponseWriter, r *http.Request, request *Request, q Quirks) {
	refuse := func(status int, text string) {
		s.record(request, text)
		http.Error(w, text, status)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case s.shows("OIDCCut", q.OIDCCut, q.OIDCCutCount):
		s.cut(request)
	case s.shows("OIDCNoAnswer", q.OIDCNoAnswer, q.OIDCNoAnswerCount):
		<-r.Context().Done()
		s.cut(request)
	case s.shows("OIDCStatus", q.OIDCStatus != 0, q.OIDCStatusCount):
		refuse(q.OIDCStatus, http.StatusText(q.OIDCStatus))
	case q.OIDCRedirectTo != "":
		s.record(request, "redirect")
		http.Redirect(w, r, q.OIDCRedirectTo, http.StatusTemporaryRedirect)
	case r.Method != http.MethodGet || r.URL.Path != "/oidc/token" || request.Form.Get("api-version") != "2.0":
		refuse(http.StatusNotFound, "no such path, or the query of the URL was lost")
	case !strings.EqualFold(scheme, "bearer") || token != s.bearer:
		refuse(http.StatusUnauthorized, "not the token that the job has")
	default:
		s.record(request, "")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, s.oidcAnswer(request.Form.Get("audience"), q))
	}
}

func (s *Server) oidcAnswer(audience string, q Quirks) string {
	if q.NoValue {
		return `{"count":0}`
	}
	token := s.newIDToken(audience, q)
	if q.MalformedIDToken {
		token = s.note(token[:strings.LastIndex(token, ".")])
	}
	answer := `{"count":1,"value":"` + token + `"}`
	if q.OIDCHuge {
		answer = `{"count":1,"padding":"` + strings.Repeat("x", 2<<20) + `","value":"` + token + `"}`
	}
	if q.OIDCNotJSON {
		answer = strings.TrimSuffix(answer, "}")
	}
	return answer
}

// useIDToken is what STS does with an ID token: nil if it is good, and then it
// is not any more.
func (s *Server) useIDToken(token string, q Quirks) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.idTokens[token]
	switch {
	case t == nil:
		return &refusal{http.StatusBadRequest, "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"}
	case t.used:
		// Stricter than AWS, where a token is good until it expires: a client
		// that repeats a request with the same token may repeat it with an expired one.
		return &refusal{http.StatusBadRequest, "InvalidIdentityToken", "this server accepts each ID token once"}
	case t.audience != Audience:
		return &refusal{http.StatusBadRequest, "InvalidIdentityToken", "Incorrect token audience"}
	case !s.now(q).Before(t.expires):
		return &refusal{http.StatusBadRequest, "ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time"}
	}
	t.used = true
	return nil
}
