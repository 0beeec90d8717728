package awsauth

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// Options of a [Keychain]. The zero value of each field works.
type Options struct {
	// RoleARN is the role that the GitHub job's ID token is exchanged for, such
	// as arn:aws:iam::123456789012:role/name. It comes before all other
	// credentials of the environment. Outside of a job with an ID token it is not
	// assumed, which is logged as a warning. Default: none, the SDK's default chain
	// is used.
	RoleARN string
	// Region is AWS's region. Default: AWS_REGION, AWS_DEFAULT_REGION, or the
	// profile's; if none of them is set, then for STS the first region of the
	// role's partition, such as us-east-1. ECR is always asked in the region of
	// the registry's host name.
	Region string
	// Duration is the lifetime of the role's credentials, 15 min to 12 h in
	// whole seconds, and no longer than the role's own maximum. They are renewed
	// when a twelfth of it is left. Default: 1 h.
	Duration time.Duration
	// SessionName is the name of the role's session in AWS's logs: 2 to 64
	// letters, digits, and characters of _+=,.@-. Default: "dockercache".
	SessionName string
	// Transport makes all requests, those for ID tokens included. With one,
	// the SDK refuses AWS_CA_BUNDLE. Default: for AWS the SDK's own; for ID
	// tokens, which are not AWS's, one with the system's certificates and the
	// proxy that the environment names.
	Transport http.RoundTripper
	// Logger gets what is tried and what is given up. Default: none.
	Logger *slog.Logger
	// Secret is called with each secret once it is known and before it is used: the
	// token for requesting ID tokens, ID tokens, secret access keys, session
	// tokens, passwords of registries and the base64 that these come in. It is
	// called by one goroutine at a time and must not call this package. It is
	// never called with access key IDs or account IDs. Default: no call.
	Secret func(string)
}

// The forms are those of
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
// and https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html.
var (
	roleARNs = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^arn:(aws[a-z-]*):iam::(\d{12}):role/(?:[\x21-\x7e]+/)?[\w+=,.@-]{1,64}$`)
	})
	sessionNames = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\w+=,.@-]{2,64}$`) })
	regions      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`) })
)

const (
	shortest, longest = 15 * time.Minute, 12 * time.Hour
	// attemptTimeout bounds each request for an ID token or for the role's
	// credentials: a host that swallows packets must not use up the time of
	// all retries.
	attemptTimeout = 15 * time.Second
)

// settings are options with the defaults filled in, and what tests replace.
type settings struct {
	Options
	secrets *redact.Secrets
	now     func() time.Time
	wait    func(context.Context, time.Duration) error
	retryer func(aws.Retryer) aws.Retryer // of ECR's clients
	attempt time.Duration                 // attemptTimeout

	ecrLimit time.Duration // ecrTimeout
}

// newSettings checks the options. Nil ones are the defaults.
func newSettings(options *Options) (*settings, error) {
	s := &settings{now: time.Now, wait: wait.Sleep, retryer: func(r aws.Retryer) aws.Retryer { return r }, attempt: attemptTimeout, ecrLimit: ecrTimeout}
	if options != nil {
		s.Options = *options
	}
	s.secrets = &redact.Secrets{Notify: s.Secret}
	if s.Duration == 0 {
		s.Duration = time.Hour
	}
	if s.SessionName == "" {
		s.SessionName = "dockercache"
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	bad := func(what, advice string) (*settings, error) {
		return nil, &Error{Op: "check the options", Kind: ErrInvalidOptions, Err: fmt.Errorf("%s", redact.Text(what)), Advice: advice}
	}
	switch {
	case s.RoleARN != "" && !roleARNs().MatchString(s.RoleARN):
		return bad(fmt.Sprintf("RoleARN %q is not the ARN of a role", s.RoleARN), "use the form arn:aws:iam::123456789012:role/name")
	case s.Region != "" && !regions().MatchString(s.Region):
		return bad(fmt.Sprintf("Region %q is not a region", s.Region), "use the form us-east-1")
	case s.Duration < shortest || s.Duration > longest || s.Duration%time.Second != 0:
		return bad(fmt.Sprintf("Duration is %v", s.Duration), "give whole seconds from 15m to 12h, and no more than the role's maximum session duration")
	case !sessionNames().MatchString(s.SessionName):
		return bad(fmt.Sprintf("SessionName %q", s.SessionName), "give 2 to 64 letters, digits, and characters of _+=,.@-")
	}
	return s, nil
}
