package awsauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/dockercache/dockercache/internal/httpclient"
	"github.com/dockercache/dockercache/internal/redact"
)

const (
	// The variables that a job has with `permissions: id-token: write`, see
	// https://docs.github.com/en/actions/reference/security/oidc.
	idTokenURL     = "ACTIONS_ID_TOKEN_REQUEST_URL"
	idTokenRequest = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
	// audience is what GitHub's identity provider is registered for in AWS.
	audience = "sts.amazonaws.com"
	// maxIDTokenAnswer bounds what is read, in bytes. An ID token has some 2 KB.
	maxIDTokenAnswer = 64 << 10
)

// idTokens are the ID tokens of a GitHub job.
type idTokens struct {
	*settings
	url    *url.URL
	bearer string
	client *http.Client
}

// findIDTokens returns where the job gets ID tokens; nil and the reason if it has
// no permission to.
func (s *settings) findIDTokens() (tokens *idTokens, missing string, err error) {
	address, bearer := strings.TrimSpace(os.Getenv(idTokenURL)), strings.TrimSpace(os.Getenv(idTokenRequest))
	switch {
	case address == "":
		return nil, idTokenURL + " is not set", nil
	case bearer == "":
		return nil, idTokenRequest + " is not set", nil
	}
	s.secrets.Add(bearer)
	bad := func(text string) (*idTokens, string, error) {
		return nil, "", &Error{Op: "find where ID tokens are", Kind: ErrNoIDToken, Err: errors.New(text), Advice: "GitHub's runner sets " + idTokenURL + "; do not change it"}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return bad(idTokenURL + " is not a URL")
	case u.Scheme != "https" && (u.Scheme != "http" || !httpclient.IsLoopback(u.Hostname())):
		return bad(idTokenURL + " is not an https URL, so the token would be sent in the clear to " + redact.Text(u.Host))
	}
	// The URL has a query already; it stays as it is.
	u.RawQuery = strings.TrimPrefix(u.RawQuery+"&audience="+url.QueryEscape(audience), "&")
	transport := s.Transport
	if transport == nil {
		transport = httpclient.NewTransport()
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the token would be sent along
	}}
	return &idTokens{s, u, bearer, client}, "", nil
}

// fetch asks for a new ID token. Each is for one attempt: they live for minutes,
// so that of the first attempt may have expired before the last.
func (t *idTokens) fetch(ctx context.Context) (token string, err error) {
	op := "get an ID token from " + t.url.Host
	err = t.retry(ctx, op, idTokenAttempts, func() (again bool, err error) {
		token, again, err = t.try(ctx)
		return again, err
	})
	if err == nil {
		return token, nil
	}
	var of *givenUp
	return "", &Error{Op: op, Kind: ErrNoIDToken, Err: t.secrets.Error(err), Advice: adviceOnIDToken(err), temporary: errors.As(err, &of)}
}

func (t *idTokens) try(ctx context.Context) (token string, again bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.attempt, errNoAnswer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.String(), nil)
	if err != nil {
		return "", false, errors.New("malformed URL")
	}
	req.Header.Set("Authorization", "bearer "+t.bearer)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "dockercache")
	resp, err := t.client.Do(req)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err // without the whole URL
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", brokenConnection(err), err
	}
	defer resp.Body.Close()
	switch status := resp.StatusCode; {
	case status >= 300 && status < 400:
		to := "elsewhere"
		if u, err := resp.Location(); err == nil {
			to = "to " + redact.Text(u.Host)
		}
		return "", false, fmt.Errorf("it redirects %s, where the job's token must not be sent", to)
	case status != http.StatusOK:
		return "", mayPass(status), &statusError{status}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIDTokenAnswer+1))
	if err != nil {
		return "", true, err
	}
	if len(body) > maxIDTokenAnswer {
		return "", false, fmt.Errorf("the answer is longer than %d bytes", maxIDTokenAnswer)
	}
	// The errors of encoding/json do not help.
	var answer struct{ Value string }
	if json.Unmarshal(body, &answer) != nil {
		return "", false, errors.New("the answer is not the expected JSON")
	}
	answer.Value = strings.TrimSpace(answer.Value)
	t.secrets.Add(answer.Value)
	if answer.Value == "" {
		return "", false, errors.New("the answer has no value")
	}
	if !isJWT(answer.Value) {
		return "", false, errors.New("the value is not three parts of base64url, as an ID token is")
	}
	return answer.Value, false, nil
}

// statusError is an answer with a status other than 200.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
}

func adviceOnIDToken(err error) string {
	var of *statusError
	if !errors.As(err, &of) {
		return ""
	}
	if mayPass(of.status) {
		return "run the job again"
	}
	return "the job's token is not accepted: check that the job is still running and has `permissions: id-token: write`"
}

// isJWT reports whether a text has the form of RFC 7519 with a signature.
func isJWT(token string) bool {
	parts := strings.Split(token, ".")
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.DecodeString(part); err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
			return false
		}
	}
	return len(parts) == 3
}
