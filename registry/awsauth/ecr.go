package awsauth

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go/middleware"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// ecrTimeout bounds a request to ECR with the SDK's retries.
	ecrTimeout = time.Minute
	// passwordLifetime is what AWS documents, for an answer without it.
	passwordLifetime = 12 * time.Hour
	// publicRegion is the only one that has ECR Public's API, apart from
	// us-west-2, which does not issue tokens for pulls:
	// https://docs.aws.amazon.com/general/latest/gr/ecr-public.html.
	publicRegion = "us-east-1"
)

// An authorization is the answer of both APIs.
type authorization struct {
	token    *string // base64 of USER:PASSWORD
	expires  *time.Time
	endpoint *string // nil for ECR Public
	metadata middleware.Metadata
}

// logIn asks ECR for the user and password of a registry, and returns when they
// end.
func (s *settings) logIn(ctx context.Context, cfg aws.Config, h host) (authn.AuthConfig, time.Time, error) {
	fail := func(err error, advice string) (authn.AuthConfig, time.Time, error) {
		return authn.AuthConfig{}, time.Time{}, &Error{Op: "log in to " + h.String(), Kind: ErrNoToken, Err: s.secrets.Error(err), Advice: advice, temporary: isTemporary(err)}
	}
	a, err := s.authorize(ctx, cfg, h)
	if isStale(err) {
		// Revoked, or ended by a clock that is wrong: once more with new ones.
		if cache, ok := cfg.Credentials.(invalidator); ok {
			s.Logger.WarnContext(ctx, "credentials are denied, asking for new ones", "by", h.String(), "error", s.secrets.Error(err))
			cache.Invalidate()
			a, err = s.authorize(ctx, cfg, h)
		}
	}
	var own *Error
	switch {
	case errors.As(err, &own): // of the credentials
		return authn.AuthConfig{}, time.Time{}, own
	case err != nil:
		return fail(err, adviceOnECR(err))
	case aws.ToString(a.token) == "":
		return fail(errors.New("the answer has none"), "")
	}
	s.secrets.Add(*a.token)
	raw, err := base64.StdEncoding.DecodeString(*a.token)
	user, password, found := strings.Cut(strings.TrimSpace(string(raw)), ":")
	if found {
		s.secrets.Add(password)
	}
	if err != nil || user == "" || password == "" {
		return fail(errors.New("it is not the base64 of a user and a password"), "")
	}
	s.checkEndpoint(ctx, h, aws.ToString(a.endpoint))
	end := s.now().Add(passwordLifetime)
	if a.expires != nil {
		end = s.local(ctx, *a.expires, a.metadata)
	}
	s.Logger.DebugContext(ctx, "logged in", "to", h.String(), "until", end)
	return authn.AuthConfig{Username: user, Password: password}, end, nil
}

// authorize asks the API that the host belongs to.
func (s *settings) authorize(ctx context.Context, cfg aws.Config, h host) (*authorization, error) {
	// Here and not by the SDK, whose error would hide which of the two failed.
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.ecrLimit, errNoAnswer)
	defer cancel()
	a, err := s.ask(ctx, cfg, h)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return a, err
}

func (s *settings) ask(ctx context.Context, cfg aws.Config, h host) (*authorization, error) {
	if h.public {
		out, err := ecrpublic.NewFromConfig(cfg, func(o *ecrpublic.Options) {
			o.Region = publicRegion
			o.Retryer = s.retryer(o.Retryer)
		}).GetAuthorizationToken(ctx, nil)
		if err != nil {
			return nil, err
		}
		if out.AuthorizationData == nil {
			return &authorization{}, nil
		}
		return &authorization{out.AuthorizationData.AuthorizationToken, out.AuthorizationData.ExpiresAt, nil, out.ResultMetadata}, nil
	}
	out, err := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
		o.Region = h.region
		o.Retryer = s.retryer(o.Retryer)
		// The SDK refuses both together with an endpoint that was set.
		if h.fips && o.BaseEndpoint == nil {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
		if h.dualStack && o.BaseEndpoint == nil {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
	}).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{
		//lint:ignore SA1019 without it the answer names the caller's account, and some policies allow the one of the image alone
		RegistryIds: []string{h.account},
	})
	if err != nil {
		return nil, err
	}
	if len(out.AuthorizationData) == 0 {
		return &authorization{}, nil
	}
	d := out.AuthorizationData[0]
	return &authorization{d.AuthorizationToken, d.ExpiresAt, d.ProxyEndpoint, out.ResultMetadata}, nil
}

// checkEndpoint warns of a token that is for another account. It is used all the
// same: a token is good for every registry that its owner may access, so the
// registry decides.
func (s *settings) checkEndpoint(ctx context.Context, h host, endpoint string) {
	of, ok := parseHost(strings.TrimPrefix(endpoint, "https://"))
	if ok && of.account != h.account {
		s.Logger.WarnContext(ctx, "ECR returned a token for another account; the registry decides whether it is good", "asked", h.account, "given", of.account)
	}
}

// isStale reports whether AWS no longer accepts the credentials, so that it may
// accept new ones.
func isStale(err error) bool {
	switch code(err) {
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId":
		return true
	}
	return false
}

func adviceOnECR(err error) string {
	switch code(err) {
	case "AccessDeniedException":
		return "the credentials' owner needs the permission ecr:GetAuthorizationToken"
	case "InvalidSignatureException":
		return "check the secret access key, and the clock of this machine"
	case "ThrottlingException", "TooManyRequestsException":
		return "too many requests at the same time: try again, or set AWS_MAX_ATTEMPTS to more than 3"
	}
	return ""
}
