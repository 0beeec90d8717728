package awsauth

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
)

// load returns a configuration for clients of the AWS SDK, with the credentials
// that the package comment describes. It reads files and the environment;
// credentials are asked for on first use.
//
// The error is an [*Error] of kind [ErrInvalidConfig] or, when the job's variables
// for ID tokens are set and wrong, [ErrNoIDToken].
func (s *settings) load(ctx context.Context) (aws.Config, error) {
	load := []func(*config.LoadOptions) error{config.WithLogger(s.sdkLogger(ctx))}
	if s.Region != "" {
		load = append(load, config.WithRegion(s.Region))
	}
	if s.Transport != nil {
		load = append(load, config.WithHTTPClient(&http.Client{Transport: s.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an ID token could be sent along
		}}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		if ctx.Err() != nil {
			return aws.Config{}, context.Cause(ctx)
		}
		return aws.Config{}, &Error{
			Op: "load the AWS configuration", Kind: ErrInvalidConfig, Err: s.secrets.Error(err),
			Advice: "check the variables that begin with AWS_, and the files ~/.aws/config and ~/.aws/credentials",
		}
	}
	const permission = "give the job `permissions: id-token: write`"
	if s.RoleARN == "" {
		cfg.Credentials = &chain{s, cfg.Credentials, "no role was given to assume"}
		return cfg, nil
	}
	tokens, missing, err := s.findIDTokens()
	if err != nil {
		return aws.Config{}, err
	}
	if tokens == nil {
		s.Logger.WarnContext(ctx, "the role is not assumed, other AWS credentials are looked for", "role", s.RoleARN, "reason", missing, "todo", permission)
		cfg.Credentials = &chain{s, cfg.Credentials, "role " + s.RoleARN + " is not assumed, because " + missing + ": " + permission}
		return cfg, nil
	}
	cfg.Credentials = newRole(s, cfg, tokens)
	return cfg, nil
}

// sdkLogger returns the settings' logger in the form that the SDK takes. The
// context is for the logger's values alone.
func (s *settings) sdkLogger(ctx context.Context) logging.Logger {
	ctx = context.WithoutCancel(ctx)
	return logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
		log := s.Logger.DebugContext
		if class == logging.Warn {
			log = s.Logger.WarnContext
		}
		log(ctx, "AWS SDK", "message", s.secrets.Text(fmt.Sprintf(format, v...)))
	})
}

// A chain is the SDK's default chain of credentials. Its errors say why no role
// was assumed, and its secrets are reported.
type chain struct {
	*settings
	aws.CredentialsProvider        // as the SDK made it, with its cache
	why                     string // no role was assumed
}

// Retrieve returns the chain's credentials. The error is an [*Error] of kind
// [ErrNoCredentials], or the cause of ctx's end.
func (c *chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	credentials, err := c.CredentialsProvider.Retrieve(ctx)
	if err == nil {
		// A variable may have got a line end, which no header may have.
		for _, v := range []*string{&credentials.AccessKeyID, &credentials.SecretAccessKey, &credentials.SessionToken} {
			*v = strings.TrimSpace(*v)
		}
		c.secrets.Add(credentials.SecretAccessKey, credentials.SessionToken)
		return credentials, nil
	}
	if ctx.Err() != nil {
		return aws.Credentials{}, context.Cause(ctx)
	}
	return aws.Credentials{}, &Error{
		Op: "find AWS credentials", Kind: ErrNoCredentials, Err: c.secrets.Error(err),
		Advice: c.why + "; without it, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run on an instance that has a role",
	}
}

// An invalidator is a provider of credentials that can drop those that it has
// cached, when AWS does not accept them: a role, and aws.CredentialsCache.
type invalidator interface{ Invalidate() }

// Invalidate drops what the SDK has cached.
func (c *chain) Invalidate() {
	if cache, ok := c.CredentialsProvider.(invalidator); ok {
		cache.Invalidate()
	}
}

// ProviderSources is for the SDK's User-Agent.
func (c *chain) ProviderSources() []aws.CredentialSource {
	if p, ok := c.CredentialsProvider.(aws.CredentialProviderSource); ok {
		return p.ProviderSources()
	}
	return nil
}

// IsCredentialsProvider is for the SDK, which looks for anonymous credentials.
func (c *chain) IsCredentialsProvider(target aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(c.CredentialsProvider, target)
}
