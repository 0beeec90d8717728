package bucket

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyendpoints "github.com/aws/smithy-go/endpoints"

	"github.com/dockercache/dockercache/internal/retryafter"
)

// awsAttempts is what the SDK wraps errors in after the last attempt.
type awsAttempts = retry.MaxAttemptsError

const (
	// attempts is how often a request is made at most. With the delays below that is half a
	// minute, in which a server that restarts is back.
	attempts = 8
	// longestDelay is how long the server may ask to wait.
	longestDelay = time.Minute
	maxBackoff   = 10 * time.Second
	// answerAfter is how long the server may take to begin an answer, after the request was
	// sent: to copy 5 GiB takes S3 a minute or so.
	answerAfter = 5 * time.Minute
)

// newClient returns a client as the environment has it.
func newClient(ctx context.Context, o *Options) (*s3.Client, error) {
	cfg := aws.Config{}
	if o.Config != nil {
		cfg = o.Config.Copy()
	} else {
		var err error
		if cfg, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, err
		}
		if cfg.Region == "" { // servers other than AWS have none, and AWS says which it is
			cfg.Region = "us-east-1"
		}
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = awshttp.NewBuildableClient()
	}
	if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		cfg.HTTPClient = c.WithTransportOptions(func(t *http.Transport) {
			if t.ResponseHeaderTimeout == 0 {
				t.ResponseHeaderTimeout = answerAfter
			}
		})
	}
	r := &obedient{Standard: newStandard()}
	if cfg.Credentials != nil && !aws.IsCredentialsProvider(cfg.Credentials, (*aws.AnonymousCredentials)(nil)) {
		r.credentials = &renewer{provider: cfg.Credentials}
		cfg.Credentials = r.credentials
	}
	return s3.NewFromConfig(cfg, func(s *s3.Options) {
		s.UsePathStyle = s.BaseEndpoint != nil
		if o.PathStyle != nil {
			s.UsePathStyle = *o.PathStyle
		}
		r.region.resolver, s.EndpointResolverV2 = s.EndpointResolverV2, &r.region
		s.Retryer = r
		// What comes is verified by the layers' digests.
		s.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		s.DisableLogOutputChecksumValidationSkipped = true
	}), nil
}

// newStandard returns the SDK's standard retryer without its bucket of tokens, which ends
// the retries of all requests after some 50 failures: an upload has thousands of requests.
func newStandard() *retry.Standard {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff
		o.RateLimiter = noLimiter{}
	})
}

type noLimiter struct{}

func (noLimiter) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (noLimiter) AddTokens(uint) error { return nil }

// obedient does what the server asks for and the SDK does not: it waits as long as Retry-After
// says, renews credentials that have expired, goes to the region of the bucket, and makes up for a
// clock that is wrong after HEAD too.
type obedient struct {
	*retry.Standard
	credentials *renewer // nil: there are none
	region      region
}

// IsErrorRetryable implements [aws.Retryer].
func (r *obedient) IsErrorRetryable(err error) bool {
	response := responseOf(err)
	if r.region.follow(response) || isSkewed(response) {
		return true
	}
	if r.credentials != nil && isExpired(err, response) {
		used, _ := signature(response)
		return r.credentials.renew(used)
	}
	return r.Standard.IsErrorRetryable(err)
}

// RetryDelay implements [aws.Retryer].
func (r *obedient) RetryDelay(attempt int, err error) (time.Duration, error) {
	delay, delayErr := r.Standard.RetryDelay(attempt, err)
	if response := responseOf(err); response != nil {
		asked, _ := retryafter.Delay(response.Header, time.Now(), longestDelay)
		delay = max(delay, asked)
	}
	return delay, delayErr
}

// responseOf returns the answer that an error is about, nil if there was none.
func responseOf(err error) *http.Response {
	var e *awshttp.ResponseError
	if errors.As(err, &e) && e.ResponseError != nil && e.Response != nil {
		return e.Response.Response
	}
	return nil
}

// signature returns with what the request of an answer was signed: the credentials, and for
// which region.
func signature(r *http.Response) (credentials, region string) {
	if r == nil || r.Request == nil {
		return "", ""
	}
	_, rest, _ := strings.Cut(r.Request.Header.Get("Authorization"), "Credential=")
	scope := strings.Split(rest, "/") // ID/DATE/REGION/s3/aws4_request
	if len(scope) < 5 {
		return "", ""
	}
	return scope[0] + " " + r.Request.Header.Get("X-Amz-Security-Token"), scope[2]
}

// isSkewed reports whether HEAD was refused, and this machine's clock is wrong: S3 accepts 15
// minutes, and the answer has no reason. The SDK has learned the server's time from it, but asks
// again only for a reason.
func isSkewed(r *http.Response) bool {
	if r == nil || r.StatusCode != http.StatusForbidden || r.Request == nil || r.Request.Method != http.MethodHead {
		return false
	}
	signed, err := time.Parse("20060102T150405Z", r.Request.Header.Get("X-Amz-Date"))
	if err != nil {
		return false
	}
	is, err := http.ParseTime(r.Header.Get("Date"))
	return err == nil && is.Sub(signed).Abs() > 10*time.Minute
}

// isExpired reports whether the server says that the credentials have expired. The answer to
// HEAD has no body, and so no reason: 400 Bad Request.
func isExpired(err error, r *http.Response) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return true
	}
	return isUnexplained(r)
}

// isUnexplained reports whether an answer is 400 without a body.
func isUnexplained(r *http.Response) bool {
	return r != nil && r.StatusCode == http.StatusBadRequest && r.Request != nil && r.Request.Method == http.MethodHead
}

// A renewer is credentials that are asked for again when the server says that they have expired:
// the provider may have others already, such as a file that another program writes, or be
// wrong about when they expire.
type renewer struct {
	provider aws.CredentialsProvider

	mu       sync.Mutex
	last     string // what was given last
	renewals int
	expired  string // what was to be renewed
	hopeless string // what was given again after that
}

// Retrieve implements [aws.CredentialsProvider].
func (r *renewer) Retrieve(ctx context.Context) (aws.Credentials, error) {
	r.mu.Lock()
	before := r.renewals
	r.mu.Unlock()
	c, err := r.provider.Retrieve(ctx)
	if err != nil {
		return c, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before == r.renewals { // else they may be the old ones
		if r.last = c.AccessKeyID + " " + c.SessionToken; r.last == r.expired {
			r.hopeless = r.last
		}
	}
	return c, nil
}

// IsCredentialsProvider implements [aws.CredentialsProvider]'s optional method, by which the SDK
// looks through wrappers.
func (r *renewer) IsCredentialsProvider(target aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(r.provider, target)
}

// renew has the credentials asked for again with which a request failed, and reports whether
// that may help.
func (r *renewer) renew(used string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch used {
	case "", r.hopeless:
		return false
	case r.last:
	default: // others are in use by now
		return true
	}
	if r.expired != used {
		r.expired = used
		r.renewals++
		if c, ok := r.provider.(interface{ Invalidate() }); ok {
			c.Invalidate()
		}
	}
	return true
}

// A region is that of the bucket, when the server has said that it is another one than the
// configuration's. It resolves endpoints for it.
type region struct {
	resolver s3.EndpointResolverV2
	mu       sync.Mutex
	name     string
}

// ResolveEndpoint implements [s3.EndpointResolverV2].
func (r *region) ResolveEndpoint(ctx context.Context, p s3.EndpointParameters) (smithyendpoints.Endpoint, error) {
	r.mu.Lock()
	if r.name != "" {
		p.Region = aws.String(r.name)
	}
	r.mu.Unlock()
	return r.resolver.ResolveEndpoint(ctx, p)
}

// follow reports whether an answer says that the bucket is in another region than the one that
// the request was signed for; further requests go there.
func (r *region) follow(response *http.Response) bool {
	_, used := signature(response)
	is := bucketRegion(response)
	if used == "" || is == "" || is == used {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.name = is
	return true
}

// bucketRegion returns the region that an answer says the bucket is in, if it refuses the
// request for another one.
func bucketRegion(r *http.Response) string {
	if r == nil || r.StatusCode != http.StatusMovedPermanently && r.StatusCode != http.StatusTemporaryRedirect && r.StatusCode != http.StatusBadRequest {
		return ""
	}
	name := r.Header.Get("X-Amz-Bucket-Region")
	isOdd := func(c rune) bool { return c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') }
	if len(name) > 40 || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") || strings.ContainsFunc(name, isOdd) { // it becomes a part of a host's name
		return ""
	}
	return name
}
