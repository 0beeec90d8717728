package awsauth

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
)

// roleLimit bounds the requests for the role's credentials with all retries. All
// waits and some requests without an answer fit in.
const roleLimit = 2 * time.Minute

// A role is an aws.CredentialsProvider of the role that ID tokens are exchanged
// for. Of the SDK, stscreds has no context for the request of an ID token and drops
// the server's time; aws.CredentialsCache has no limit in time and no clock that a
// test could set. It is safe for concurrent use.
type role struct {
	*settings
	tokens   *idTokens
	client   *sts.Client
	attempts int
	cached   cached[aws.Credentials]
}

// newRole makes the provider, and asks for nothing yet.
func newRole(s *settings, cfg aws.Config, tokens *idTokens) *role {
	r := &role{settings: s, tokens: tokens, attempts: cfg.RetryMaxAttempts}
	if r.attempts == 0 {
		r.attempts = stsAttempts
	}
	r.client = sts.NewFromConfig(cfg, func(o *sts.Options) {
		// The SDK's retries would repeat the ID token, which expires meanwhile.
		o.Retryer, o.RetryMaxAttempts = aws.NopRetryer{}, 1
		if o.Region == "" {
			o.Region = firstRegion(s.RoleARN)
		}
	})
	r.cached.now, r.cached.renew, r.cached.limit = s.now, r.assume, roleLimit
	r.cached.kept = func(ctx context.Context, why error, until time.Time) {
		s.Logger.WarnContext(ctx, "credentials of the role are not renewed, the present ones are still good", "role", s.RoleARN, "until", until, "error", why)
	}
	return r
}

// firstRegion is where to ask for a role when no region is set: the first region
// of its partition.
func firstRegion(arn string) string {
	switch partition := roleARNs().FindStringSubmatch(arn)[1]; partition {
	case "aws-cn":
		return "cn-north-1"
	case "aws-us-gov":
		return "us-gov-west-1"
	case "aws-eusc":
		return "eusc-de-east-1"
	}
	return "us-east-1"
}

// Retrieve returns credentials of the role that are good for a while. The error
// is an [*Error] of kind [ErrNoIDToken] or [ErrNoRole], or that of ctx's end.
func (r *role) Retrieve(ctx context.Context) (aws.Credentials, error) { return r.cached.get(ctx) }

// Invalidate drops the credentials, so that the next Retrieve asks for new ones.
func (r *role) Invalidate() { r.cached.forget(func(aws.Credentials) bool { return true }) }

// ProviderSources is for the SDK's User-Agent.
func (r *role) ProviderSources() []aws.CredentialSource {
	return []aws.CredentialSource{aws.CredentialSourceSTSAssumeRoleWebID}
}

// assume exchanges a new ID token for credentials, with retries.
func (r *role) assume(ctx context.Context) (credentials aws.Credentials, end time.Time, err error) {
	op := "assume role " + r.RoleARN
	err = r.retry(ctx, op, r.attempts, func() (again bool, err error) {
		token, err := r.tokens.fetch(ctx)
		if err != nil {
			return false, err // after retries of its own
		}
		credentials, end, err = r.try(ctx, token)
		return err != nil && isTemporarySTS(err), err
	})
	var noToken *Error
	switch {
	case err == nil:
		r.Logger.DebugContext(ctx, "assumed role", "role", r.RoleARN, "accessKeyID", credentials.AccessKeyID, "until", end)
		return credentials, end, nil
	case errors.As(err, &noToken):
		return aws.Credentials{}, time.Time{}, noToken
	}
	return aws.Credentials{}, time.Time{}, &Error{Op: op, Kind: ErrNoRole, Err: r.secrets.Error(err), Advice: r.advice(err), temporary: r.temporary(err)}
}

// temporary reports whether to ask again later when the attempts are used up. AWS
// returns the same for an identity provider that it cannot reach and for one that
// the account does not have; after so many times it is the latter.
func (r *role) temporary(err error) bool {
	var of *givenUp
	return errors.As(err, &of) && code(err) != "InvalidIdentityToken"
}

// try exchanges one ID token, once.
func (r *role) try(ctx context.Context, token string) (aws.Credentials, time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.attempt, errNoAnswer)
	defer cancel()
	out, err := r.client.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          &r.RoleARN,
		RoleSessionName:  &r.SessionName,
		WebIdentityToken: &token,
		DurationSeconds:  aws.Int32(int32(r.Duration / time.Second)),
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return aws.Credentials{}, time.Time{}, context.Cause(ctx)
	case err != nil:
		return aws.Credentials{}, time.Time{}, err
	case out.Credentials == nil:
		return aws.Credentials{}, time.Time{}, errors.New("the answer has no credentials")
	}
	c := aws.Credentials{
		AccessKeyID:     aws.ToString(out.Credentials.AccessKeyId),
		SecretAccessKey: aws.ToString(out.Credentials.SecretAccessKey),
		SessionToken:    aws.ToString(out.Credentials.SessionToken),
		Source:          "GitHub OIDC", CanExpire: true,
		AccountID: roleARNs().FindStringSubmatch(r.RoleARN)[2],
	}
	r.secrets.Add(c.SecretAccessKey, c.SessionToken)
	if !c.HasKeys() || c.SessionToken == "" || out.Credentials.Expiration == nil {
		return aws.Credentials{}, time.Time{}, errors.New("the answer has no complete credentials")
	}
	c.Expires = r.local(ctx, *out.Credentials.Expiration, out.ResultMetadata)
	return c, c.Expires, nil
}

// local converts a time by AWS's clock into one by ours: what counts is how long
// something lasts from the answer on, which has AWS's time. With our clock an hour
// ahead, credentials for a quarter of an hour would never seem good.
func (s *settings) local(ctx context.Context, t time.Time, answer middleware.Metadata) time.Time {
	theirs, known := awsmiddleware.GetServerTime(answer) // the Date header, in whole seconds
	if !known {
		return t
	}
	ours := s.now()
	if ahead := ours.Sub(theirs); ahead.Abs() > time.Minute {
		s.Logger.WarnContext(ctx, "this machine's clock differs from that of AWS", "ahead", ahead.Round(time.Second))
	}
	return ours.Add(t.Sub(theirs))
}

func (r *role) advice(err error) string {
	switch code(err) {
	case "AccessDenied":
		return "the role's trust policy must allow this repository and ref: compare its conditions on token.actions.githubusercontent.com:sub and :aud"
	case "ValidationError":
		return "the role's maximum session duration must be at least the " + r.Duration.String() + " that were asked for"
	case "InvalidIdentityToken":
		return "the role's account must have the identity provider token.actions.githubusercontent.com with the audience " + audience
	case "RegionDisabledException":
		return "activate STS in that region, or set another one"
	}
	if strings.Contains(code(err), "Throttl") {
		return "too many jobs at the same time: run the job again"
	}
	return ""
}

var _ aws.CredentialsProvider = (*role)(nil)
