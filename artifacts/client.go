package artifacts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Options of a [Client]. The zero value of each field works.
type Options struct {
	// APIURL is where the REST API is, such as https://ghe.example.com/api/v3.
	// It must be https, except on loopback. Default: the environment's
	// GITHUB_API_URL, else https://api.github.com.
	APIURL string
	// Token is sent to the API, and to nobody else. It needs the permission
	// "actions: read". Default: none, which is enough for a public repository's
	// runs, not for downloads, and for 60 requests an hour.
	Token string
	// Transport makes the requests, without retries. Default: net/http's, with
	// a limit of 10 s on connecting.
	Transport http.RoundTripper
	// Timeout is how long one request may take with its answer, a download
	// included. Default: 2 min.
	Timeout time.Duration
	// RetryWait is the wait before a request that failed is repeated the first
	// time; it doubles with each of 4 repetitions. Default: 1 s.
	RetryWait time.Duration
	// MaxWait is how long one call may wait in all for rate limits to end.
	// Beyond it the call fails and says until when the limit holds.
	// Default: 10 min.
	MaxWait time.Duration
	// Wait waits for a rate limit to end, or for the context. It is there for
	// tests. Default: a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Limits bound what is downloaded.
	Limits Limits
	// Logger is told what is asked for and waited for. Default: silent.
	Logger *slog.Logger
}

// A Client asks the Actions API. It is safe for concurrent use.
type Client struct {
	options Options
	api     *url.URL
	http    *retryablehttp.Client
}

// New returns a client. Nil options are the defaults. The error, of kind
// [ErrRequest], is about [Options.APIURL].
func New(options *Options) (*Client, error) {
	c := &Client{}
	if options != nil {
		c.options = *options
	}
	o := &c.options
	if o.APIURL == "" {
		o.APIURL = os.Getenv("GITHUB_API_URL")
	}
	if o.APIURL == "" {
		o.APIURL = "https://api.github.com"
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.RetryWait == 0 {
		o.RetryWait = time.Second
	}
	if o.MaxWait == 0 {
		o.MaxWait = 10 * time.Minute
	}
	if o.Wait == nil {
		o.Wait = waitFor
	}
	o.Limits = o.Limits.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.api, err = parseAPI(o.APIURL); err != nil {
		return nil, &Error{Op: "use", Source: "the API's URL", Kind: ErrRequest, Err: err}
	}
	c.http = newHTTP(o)
	return c, nil
}

// parseAPI checks the API's URL. Its text is in no error: it may hold a
// password.
func parseAPI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it must have neither user, query nor fragment")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("want https://HOST/PATH")
	}
	return u, checkSecure(u)
}

// checkSecure refuses to send a request, or what signs it, in plain text.
func checkSecure(u *url.URL) error {
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return &unsafeURLError{fmt.Sprintf("%s://%s: only https is allowed", u.Scheme, u.Host)}
	}
	return nil
}

// An unsafeURLError is about a URL that is not asked, however often.
type unsafeURLError struct{ text string }

func (e *unsafeURLError) Error() string { return e.text }

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// checkRepository refuses what is not OWNER/NAME: it becomes part of a URL that
// is asked with a token.
func checkRepository(repository string) error {
	owner, name, ok := strings.Cut(repository, "/")
	if !ok || !isName(owner) || !isName(name) {
		return &Error{Op: "use the repository", Source: fmt.Sprintf("%.200q", repository), Kind: ErrRequest, Err: errors.New("want OWNER/NAME")}
	}
	return nil
}

func isName(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	return s != "" && s != "." && s != ".." && len(s) <= 100 && strings.Trim(s, allowed) == ""
}

func waitFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
