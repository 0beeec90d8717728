package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	userAgent = "dockercache"
	// apiVersion is the version of the REST API that the answers are read as.
	apiVersion = "2022-11-28"
)

// A call is one method of a [Client] with all its requests: they share what is
// left of [Options.MaxWait].
type call struct {
	*Client
	left  time.Duration
	waits int // for limits that do not say how long
}

func (c *Client) newCall() *call { return &call{Client: c, left: c.options.MaxWait} }

// An answer is what the API said, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL // of the storage, after a redirect
}

// get asks for a path below the API's URL. Every answer but 200 is an error.
func (c *call) get(ctx context.Context, op, source, path string, query url.Values) (*answer, error) {
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
			return nil, newError(ctx, op, source, ErrRateLimited, fmt.Errorf("%s: the API asks to wait for %v more, until %s; left to wait are %v",
				a.text(), wait.Round(time.Second), a.now().Add(wait).UTC().Format(time.RFC3339), c.left.Round(time.Second)))
		}
		c.waits++
		c.left -= wait
		c.options.Logger.WarnContext(ctx, "rate limited, waiting", "for", wait.Round(time.Second).String(), "answer", clean(a.text()))
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
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	c.options.Logger.DebugContext(ctx, "request", "host", u.Host, "path", u.Path)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // from memory: the transport has it whole
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
	if err := json.Unmarshal(a.body, into); err != nil {
		return newError(ctx, op, source, ErrAnswer, fmt.Errorf("status 200, but %w", err))
	}
	return nil
}

// kind is for answers that are neither a success nor a rate limit.
func (a *answer) kind() error {
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return ErrDenied
	case a.status == http.StatusNotFound:
		return ErrNotFound
	case a.status == http.StatusGone:
		return ErrExpired
	case a.status >= 300 && a.status < 400:
		return ErrOtherRepository // what was renamed or moved redirects
	case a.status >= 500:
		return ErrUnreachable
	}
	return ErrAnswer
}

// text is the status and the API's message. An answer that has none, such as a
// web page, is only named by its status.
func (a *answer) text() string {
	text := fmt.Sprintf("status %d %s", a.status, http.StatusText(a.status))
	var said struct{ Message string }
	if json.Unmarshal(a.body, &said) == nil && said.Message != "" {
		text += fmt.Sprintf(": %.300s", said.Message)
	}
	return text
}

// kindOf is for requests that got no answer.
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

// withoutURL takes off what net/http puts before its errors: the whole URL.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
