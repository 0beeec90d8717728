package awstest_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

func TestSignatures(t *testing.T) {
	s := awstest.New(t)
	good, refused := assume(t, s, goodToken(t, s), nil)
	require.Empty(t, refused)
	assert.Empty(t, login(s, good, nil))
	assert.Equal(t, "eu-west-1", s.Requests(awstest.ECR)[0].Region)

	bad := good
	bad.SecretAccessKey += "x"
	assert.Equal(t, "InvalidSignatureException", login(s, bad, nil))
	bad = good
	bad.SessionToken = ""
	assert.Equal(t, "UnrecognizedClientException", login(s, bad, nil))
	bad = good
	bad.AccessKeyID = "ASIAUNKNOWN"
	assert.Equal(t, "UnrecognizedClientException", login(s, bad, nil))
	assert.Equal(t, "MissingAuthenticationTokenException", login(s, good, func(o *ecr.Options) { o.Credentials = aws.AnonymousCredentials{} }))
	assert.NotEmpty(t, login(s, good, func(o *ecr.Options) { o.BaseEndpoint = aws.String(s.URL(awstest.ECRPublic)) }), "signed for another service")

	s.SetQuirks(awstest.Quirks{ClockSkew: time.Hour})
	assert.Equal(t, "InvalidSignatureException", login(s, good, nil))
	s.SetQuirks(awstest.Quirks{ClockSkew: 2 * time.Hour})
	assert.Equal(t, "InvalidSignatureException", login(s, good, nil))

	s.SetQuirks(awstest.Quirks{CredentialUses: 3})
	assert.Empty(t, login(s, good, nil))
	assert.Empty(t, login(s, good, nil))
	assert.Equal(t, "ExpiredTokenException", login(s, good, nil), "the one before SetQuirks counts")
	s.SetQuirks(awstest.Quirks{})
	assert.Empty(t, login(s, good, nil))
	s.ExpireCredentials()
	assert.Equal(t, "ExpiredTokenException", login(s, good, nil))

	user := s.NewCredentials()
	assert.Empty(t, login(s, aws.Credentials{AccessKeyID: user.AccessKeyID, SecretAccessKey: user.SecretAccessKey}, nil))
}
