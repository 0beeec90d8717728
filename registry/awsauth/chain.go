package awsauth

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// A chain is the SDK's default chain of credentials, with errors that say what
// else there could have been, and whose secrets are told.
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

// Invalidate drops what the SDK has cached.
func (c *chain) Invalidate() {
	if cache, ok := c.CredentialsProvider.(interface{ Invalidate() }); ok {
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

// IsCredentialsProvider is for the SDK, which looks for anonymous ones.
func (c *chain) IsCredentialsProvider(target aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(c.CredentialsProvider, target)
}
