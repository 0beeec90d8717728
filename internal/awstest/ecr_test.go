package awstest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// login asks ECR for a token and returns the code of the error.
func login(s *awstest.Server, c aws.Credentials, change func(*ecr.Options)) string {
	client := ecr.New(ecr.Options{Region: "eu-west-1", BaseEndpoint: aws.String(s.URL(awstest.ECR)), Retryer: aws.NopRetryer{}, Credentials: provider(c)}, func(o *ecr.Options) {
		if change != nil {
			change(o)
		}
	})
	_, err := client.GetAuthorizationToken(context.Background(), nil)
	return code(err)
}

func provider(c aws.Credentials) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil })
}

func TestPasswords(t *testing.T) {
	s := awstest.New(t)
	keys := s.NewCredentials()
	c := aws.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey}
	password := func() string {
		require.Empty(t, login(s, c, nil))
		for i := len(s.Secrets()) - 1; ; i-- {
			if p := s.Secrets()[i]; strings.HasPrefix(p, "password-") {
				return p
			}
		}
	}
	first := password()
	assert.True(t, s.GoodPassword("AWS", first))
	assert.False(t, s.GoodPassword("aws", first))
	assert.False(t, s.GoodPassword("AWS", first+"x"))
	assert.False(t, s.GoodPassword("AWS", ""))
	s.ExpirePasswords()
	assert.False(t, s.GoodPassword("AWS", first))
	assert.True(t, s.GoodPassword("AWS", password()))
	s.SetQuirks(awstest.Quirks{PasswordLifetime: -time.Second})
	assert.False(t, s.GoodPassword("AWS", password()))

	public := ecrpublic.New(ecrpublic.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.URL(awstest.ECRPublic)), Credentials: provider(c)})
	out, err := public.GetAuthorizationToken(t.Context(), nil)
	require.NoError(t, err)
	assert.Contains(t, s.Secrets(), *out.AuthorizationData.AuthorizationToken)
	public = ecrpublic.New(ecrpublic.Options{Region: "eu-west-1", BaseEndpoint: aws.String(s.URL(awstest.ECRPublic)), Credentials: provider(c)})
	_, err = public.GetAuthorizationToken(t.Context(), nil)
	assert.Equal(t, "InvalidSignatureException", code(err), "it is in one region alone")
}
