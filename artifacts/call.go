package artifacts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/retryafter"
	"github.com/dockercache/dockercache/internal/strictjson"
)

const (
	userAgent = "dockercache"
	// apiVersion is the version of the REST API that this package uses.
	apiVersion = "2022-11-28"
)

// A call is one call of a method of a [Client] with all its requests: they share
// what is left of [Options.MaxWait].
type call struct {
	*Client
	left  time.Duration
	waits int // for limits that do not state how long
}

func (c *Client) newCall() *call {
	if c == nil {
		c = &Client{}
	}
	return &call{Client: c, left: c.options.MaxWait}
}

// An answer is a whole answer of the API.
type answer struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL // of the storage, after a redirect
}

// get requests a path below the API's URL. Every answer but 200 is an error.
func (c *call) get(ctx context.Context, op, source, path string, query url.Values) (*answer, error) {
	if c.http == nil {
		return nil, newError(ctx, op, source, ErrRequest, errors.New("the client was not made by New"))
	}
	u := c.api.JoinPath(path)
	u.RawQuery = query.Encode()
	for {
		a, err := c.once(ctx, u)
		if err != nil {
			return nil, newError(ctx, op, source, kindOf(err), withoutURL(err))
		}
		if a.status == http.StatusOK {
			return a, nil
		}
		wait, limited := a.rateLimit(c.waits)
		if !limited {
			kind := a.kind()
			return nil, newError(ctx, op, source, kind, errors.New(a.text()))
		}
		if wait > c.left {
			long := fmt.Sprintf("%v more, until %s", wait.Round(time.Second), a.now().Add(wait).UTC().Format(time.RFC3339))
			if wait >= longestWait {
				long = fmt.Sprintf("more than %v hours", longestWait.Hours())
			}
			return nil, newError(ctx, op, source, ErrRateLimited, fmt.Errorf("%s: the API asks to wait for %s, but the limit on waiting leaves %v",
				a.text(), long, c.left.Round(time.Second)))
		}
		c.waits++
		c.left -= wait
		c.options.Logger.WarnContext(ctx, "rate limited, waiting", "for", wait.Round(time.Second).String(), "answer", a.text())
		if err := c.options.Wait(ctx, wait); err != nil {
			return nil, newError(ctx, op, source, ErrRateLimited, err)
		}
	}
}

func (c *call) once(ctx context.Context, u *url.URL) (*answer, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("X-GitHub-Api-Version", apiVersion)
	if c.options.Token != "" {
		c.secrets.Add(c.options.Token) // again: only the last ones are kept
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	c.options.Logger.DebugContext(ctx, "request", "host", u.Host, "path", u.Path)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // from memory: the transport has read it
	if err != nil {
		return nil, err
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body, url: resp.Request.URL}, nil
}

// getJSON is get for an answer that is an object.
func (c *call) getJSON(ctx context.Context, op, source, path string, query url.Values, into any) error {
	a, err := c.get(ctx, op, source, path, query)
	if err != nil {
		return err
	}
	if err := strictjson.Unmarshal(a.body, into); err != nil {
		return newError(ctx, op, source, ErrAnswer, fmt.Errorf("status 200, but %w", err))
	}
	return nil
}

// checkEcho returns an error if texts that will be printed as results contain what was
// sent as a secret: that is no error's text, which would only lose it.
func (c *Client) checkEcho(ctx context.Context, op, source string, texts ...string) error {
	for _, text := range texts {
		if c.secrets.Text(text) != redact.Text(text) {
			return newError(ctx, op, source, ErrAnswer, errors.New("it contains a secret that was sent, such as the token"))
		}
	}
	return nil
}

// kind returns the kind of error of an answer that is neither a success nor a
// rate limit.
func (a *answer) kind() error {
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return ErrDenied
	case a.status == http.StatusNotFound:
		return ErrNotFound
	case a.status == http.StatusGone:
		return ErrExpired
	case a.status >= 300 && a.status < 400:
		return ErrOtherRepository // a renamed repository redirects
	case a.status >= 500:
		return ErrUnreachable
	}
	return ErrAnswer
}

// text is the status and the API's message, if the answer has one: a web page has
// not.
func (a *answer) text() string {
	text := fmt.Sprintf("status %d %s", a.status, http.StatusText(a.status))
	var object struct{ Message string }
	if json.Unmarshal(a.body, &object) == nil && object.Message != "" {
		text += fmt.Sprintf(": %.300s", object.Message)
	}
	return text
}

// kindOf returns the kind of error of a request without an answer.
func kindOf(err error) error {
	var limit *limitError
	var unsafeURL *unsafeURLError
	switch {
	case errors.As(err, &limit):
		return ErrLimit
	case errors.As(err, &unsafeURL):
		return ErrAnswer
	}
	return ErrUnreachable
}

// withoutURL removes what net/http puts before its errors: the whole URL.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// secondaryWait is how long to wait first after a rate limit without a time. It
// doubles from there. See
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api.
const secondaryWait = time.Minute

// rateLimit reports whether an answer is a rate limit, and how long to wait. A
// 403 is one only by its headers or its message: most are refusals. before is how
// many limits without a time were waited for already.
func (a *answer) rateLimit(before int) (time.Duration, bool) {
	if a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests {
		return 0, false
	}
	if wait, ok := retryafter.Delay(a.header, a.now(), longestWait); ok {
		return bounded(wait), true
	}
	if a.header.Get("X-Ratelimit-Remaining") == "0" {
		if reset, ok := parseSeconds(a.header.Get("X-Ratelimit-Reset")); ok {
			// The reset is within the second that it names.
			return bounded(time.Unix(reset, 0).Sub(a.now())) + time.Second, true
		}
	}
	if a.status == http.StatusTooManyRequests || bytes.Contains(bytes.ToLower(a.body), []byte("rate limit")) {
		return secondaryWait << min(before, 10), true
	}
	return 0, false
}

// parseSeconds reads a number of seconds since 1970. One that is too large
// for any sum becomes the largest that is not: it must not be taken for no number.
func parseSeconds(text string) (int64, bool) {
	const most = 1 << 33 // 272 years, which a time.Duration can hold
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return int64(min(n, most)), true
}

// longestWait is what is taken for all longer waits, so that no sum overflows.
const longestWait = 1000 * time.Hour

// bounded keeps the answer "now" from causing requests without end.
func bounded(wait time.Duration) time.Duration {
	return min(max(wait, time.Second), longestWait)
}

// now is the server's time: the clock of this machine may be wrong, and the reset
// is by the server's clock.
func (a *answer) now() time.Time {
	if t, err := http.ParseTime(a.header.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}
