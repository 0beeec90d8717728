package artifacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/dockercache/dockercache/internal/httpclient"
	"github.com/dockercache/dockercache/internal/httpretry"
	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// Options of a [Client]. The zero value of each field works.
type Options struct {
	// APIURL is where the REST API is, such as https://ghe.example.com/api/v3.
	// It must be https, except on loopback. Default: the environment's
	// GITHUB_API_URL, else https://api.github.com.
	APIURL string
	// Token is sent to the API only, without white space around it. It needs the permission
	// "actions: read". Default: none, which is enough for the runs of a public repository,
	// not for downloads, and for 60 requests an hour.
	Token string
	// Transport makes the requests, without retries. Default: net/http's, with
	// a limit of 10 s on connecting.
	Transport http.RoundTripper
	// Timeout is how long one request may take with its answer, a download
	// included; other answers of the API may take 30 s at most. Default: 2 min.
	Timeout time.Duration
	// RetryWait is the wait before a request that failed is repeated the first
	// time; it doubles with each of 4 repetitions. Default: 1 s.
	RetryWait time.Duration
	// MaxWait is how long one call may wait in all for rate limits to end.
	// Beyond it the call fails, and the error states until when the limit holds.
	// Default: 10 min.
	MaxWait time.Duration
	// Wait waits for a rate limit to end, or for the context. It is there for
	// tests. Default: a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Limits bound what is downloaded.
	Limits Limits
	// Logger logs requests (debug) and waits (warning). Default: no log.
	Logger *slog.Logger
}

// A Client calls the Actions API. It is safe for concurrent use. Make it by
// [New].
type Client struct {
	options Options
	api     *url.URL
	http    *retryablehttp.Client
	secrets *redact.Secrets // nothing that is returned as an error or logged has one
}

// New returns a client. Nil options are the defaults. The error, of kind
// [ErrRequest], is about [Options.APIURL].
func New(options *Options) (*Client, error) {
	c := &Client{secrets: &redact.Secrets{}}
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
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.RetryWait <= 0 {
		o.RetryWait = time.Second
	}
	if o.MaxWait == 0 {
		o.MaxWait = 10 * time.Minute
	}
	if o.Wait == nil {
		o.Wait = wait.Sleep
	}
	o.Token = strings.TrimSpace(o.Token) // one that was read from a file ends with a newline
	o.Limits = o.Limits.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = slog.New(c.secrets.Handler(o.Logger.Handler()))
	var err error
	if c.api, err = parseAPI(o.APIURL); err != nil {
		return nil, &Error{Op: "use", Source: "the API's URL", Kind: ErrRequest, Err: err}
	}
	if o.Transport == nil {
		o.Transport = httpclient.NewTransport()
	}
	c.http = httpretry.New(&wholeTransport{base: o.Transport, maxArchive: o.Limits.ArchiveBytes, secrets: c.secrets}, o.RetryWait, checkRetry)
	c.http.HTTPClient.Timeout = o.Timeout
	return c, nil
}

// parseAPI checks the API's URL. No error contains it: it may have a password.
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

// checkSecure refuses to send a token, or a signed URL, in plain text.
func checkSecure(u *url.URL) error {
	if u.Scheme != "https" && (u.Scheme != "http" || !httpclient.IsLoopback(u.Hostname())) {
		return &unsafeURLError{fmt.Sprintf("%s://%s: only https is allowed", u.Scheme, u.Host)}
	}
	return nil
}

// An unsafeURLError is about a URL that is never requested.
type unsafeURLError struct{ text string }

func (e *unsafeURLError) Error() string { return e.text }

// checkRepository refuses what is not OWNER/NAME: it becomes part of a URL that
// is requested with a token.
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

// maxAnswer is the limit on an answer of the API, in bytes: a page of 100
// artifacts has some 100 KB.
const maxAnswer = 8 << 20

// answerTime is the limit on the time that an answer of the API takes, which is small:
// one that drips must not hold a program up, and is repeated.
const answerTime = 30 * time.Second

var errSlow = fmt.Errorf("the answer is not complete after %v", answerTime)

// wholeTransport returns answers with their whole body, and for a download what
// the storage answers that the API redirects to. So a body that breaks off is
// repeated as a request that failed is, and each repetition of a download asks
// for a new URL of the storage: one is valid for one minute.
type wholeTransport struct {
	base       http.RoundTripper
	maxArchive int64
	secrets    *redact.Secrets
	place      atomic.Int64 // an [httpclient.Place]: where the API was found to be
}

// isDownload reports whether a request is answered by a redirect to a storage.
func isDownload(u *url.URL) bool { return strings.HasSuffix(u.Path, "/zip") }

func (t *wholeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), answerTime, errSlow)
	defer cancel()
	if isDirect(req) {
		ctx = httpclient.WithAddressCheck(ctx, func(address string) error {
			t.place.Store(int64(placeOf(address)))
			return nil
		})
	}
	resp, err := t.whole(req.WithContext(ctx), maxAnswer)
	if limit := new(limitError); errors.As(err, &limit) {
		limit.fixed = true
	}
	if err != nil || resp.StatusCode != http.StatusFound || !isDownload(req.URL) {
		return resp, err
	}
	location, err := resp.Location()
	if err != nil {
		return nil, errors.New("a redirect without a location")
	}
	hideURL(t.secrets, location)
	if err := checkSecure(location); err != nil {
		return nil, err
	}
	may := max(httpclient.PlaceOfHost(req.URL.Hostname()), httpclient.Place(t.place.Load()), httpclient.Private)
	refuse := func(address string, is httpclient.Place) error {
		return &unsafeURLError{fmt.Sprintf("%s redirects to %s, %s, which only a server on this machine may do", req.URL.Host, address, is)}
	}
	if is := httpclient.PlaceOfHost(location.Hostname()); is > may {
		return nil, refuse(location.Host, is)
	}
	// A new request: without token, cookie or referrer.
	get, err := http.NewRequestWithContext(req.Context(), http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, errors.New("a redirect to an unusable URL")
	}
	if isDirect(get) {
		get = get.WithContext(httpclient.WithAddressCheck(get.Context(), func(address string) error {
			if is := placeOf(address); is > may {
				return refuse(location.Host+" at "+address, is)
			}
			return nil
		}))
	}
	get.Header.Set("User-Agent", userAgent)
	get.Header.Set("Accept-Encoding", "identity") // the digest is of the bytes as they are stored
	body, err := t.whole(get, t.maxArchive)
	if err != nil {
		return nil, err
	}
	if body.StatusCode != http.StatusOK {
		return nil, &storageError{location.Host, body.StatusCode}
	}
	return body, nil
}

// isDirect reports whether the address that is dialled is the host's, not a proxy's.
func isDirect(req *http.Request) bool {
	proxy, err := http.ProxyFromEnvironment(req)
	return err == nil && proxy == nil
}

// placeOf returns where an address is, IP:PORT.
func placeOf(address string) httpclient.Place {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return httpclient.Here // which is the worst
	}
	return httpclient.PlaceOf(at.Addr())
}

// hideURL adds what gives access to a URL of the storage: its path and query, and each
// part of these that is long enough to be a signature. Words and times that ordinary
// texts have too are no secrets: errors would lose them.
func hideURL(secrets *redact.Secrets, u *url.URL) {
	const shortest = 16
	var ordinary []string
	for _, name := range []string{
		"rscd", "rsct", "se", "st", "ske", "skt", // Azure's shared access signatures
		"artifactName", "urlExpires",
		"response-content-disposition", "response-content-type", "X-Amz-Date",
	} {
		ordinary = append(ordinary, u.Query()[name]...)
	}
	for _, text := range []string{u.EscapedPath(), u.RawQuery, u.EscapedFragment()} {
		parts := strings.FieldsFunc(escapedSeparators.Replace(text), isSeparator)
		if plain, err := url.PathUnescape(text); err == nil {
			parts = append(parts, strings.FieldsFunc(plain, isSeparator)...)
		}
		if len(text) >= shortest {
			secrets.HideWhole(text)
		}
		for _, part := range parts {
			words, err := url.QueryUnescape(part)
			isOrdinary := err == nil && slices.ContainsFunc(ordinary, func(value string) bool { return strings.Contains(value, words) })
			if len(part) >= shortest && !strings.HasPrefix(part, "/") && !isOrdinary {
				secrets.Add(part)
			}
		}
	}
}

// isSeparator reports whether a signature may begin after a character.
func isSeparator(r rune) bool { return strings.ContainsRune("&;=#'\" ", r) }

var escapedSeparators = strings.NewReplacer("%26", "&", "%3B", ";", "%3D", "=", "%23", "#", "%27", "'", "%22", `"`, "%20", " ")

// whole makes a request and reads all of its answer.
func (t *wholeTransport) whole(req *http.Request, limit int64) (*http.Response, error) {
	slow := func(err error) error {
		if cause := context.Cause(req.Context()); errors.Is(cause, errSlow) {
			return cause // not "context deadline exceeded"
		}
		return err
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, slow(err))
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", req.URL.Host, slow(err))
	}
	if int64(len(content)) > limit {
		return nil, &limitError{fmt.Sprintf("%s answers with more than %d bytes", req.URL.Host, limit), false}
	}
	resp.Body, resp.Request = io.NopCloser(bytes.NewReader(content)), req
	return resp, nil
}

// A limitError is about an answer that is too large. Its kind is [ErrLimit].
type limitError struct {
	text  string
	fixed bool // by this package, not by [Limits]
}

func (e *limitError) Error() string { return e.text }

// A storageError is an answer of the storage that is not the artifact. It is an
// error, not a response, so that a refused signature is not taken for the API's
// refusal.
type storageError struct {
	host   string
	status int
}

func (e *storageError) Error() string {
	return fmt.Sprintf("the storage %s answers %d %s", e.host, e.status, http.StatusText(e.status))
}

// checkRetry is [httpretry.Check], but for answers that stay as they are. An
// answer of the storage is always repeated, since the next one has another URL.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var unsafeURL *unsafeURLError
	var limit *limitError
	if errors.As(err, &unsafeURL) || errors.As(err, &limit) {
		return false, ctx.Err()
	}
	return httpretry.Check(ctx, resp, err)
}
