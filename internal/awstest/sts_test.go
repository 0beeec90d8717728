package awstest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// assume asks STS for a role and returns the code of the error.
func assume(t *testing.T, s *awstest.Server, token string, change func(*sts.AssumeRoleWithWebIdentityInput)) (aws.Credentials, string) {
	t.Helper()
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.URL(awstest.STS)), Retryer: aws.NopRetryer{}})
	in := &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(role), RoleSessionName: aws.String("test"), WebIdentityToken: &token}
	if change != nil {
		change(in)
	}
	out, err := client.AssumeRoleWithWebIdentity(t.Context(), in)
	if err != nil {
		return aws.Credentials{}, code(err)
	}
	c := out.Credentials
	return aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken, Expires: *c.Expiration}, ""
}

func TestSTS(t *testing.T) {
	s := awstest.New(t)
	token := goodToken(t, s)
	c, refused := assume(t, s, token, func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = aws.Int32(18000) })
	require.Empty(t, refused)
	assert.InDelta(t, 18000, time.Until(c.Expires).Seconds(), 60)
	assert.Subset(t, s.Secrets(), []string{c.SecretAccessKey, c.SessionToken})
	assert.NotContains(t, s.Secrets(), c.AccessKeyID)

	_, refused = assume(t, s, token, nil)
	assert.Equal(t, "InvalidIdentityToken", refused, "each is good for one use")
	_, refused = assume(t, s, "a.b.c", nil)
	assert.Equal(t, "InvalidIdentityToken", refused)
	_, other := idToken(t, s, "&audience=other", "bearer "+s.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	_, refused = assume(t, s, other, nil)
	assert.Equal(t, "InvalidIdentityToken", refused)

	for _, change := range []func(*sts.AssumeRoleWithWebIdentityInput){
		func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = aws.Int32(899) },
		func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = aws.Int32(43201) },
		func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleSessionName = aws.String("a b") },
		func(in *sts.AssumeRoleWithWebIdentityInput) { in.RoleArn = aws.String("role") },
	} {
		_, refused = assume(t, s, goodToken(t, s), change)
		assert.Equal(t, "ValidationError", refused)
	}

	s.SetQuirks(awstest.Quirks{Role: role + "x"})
	_, refused = assume(t, s, goodToken(t, s), nil)
	assert.Equal(t, "AccessDenied", refused)
	s.SetQuirks(awstest.Quirks{MaxDuration: 30 * time.Minute})
	_, refused = assume(t, s, goodToken(t, s), nil)
	assert.Equal(t, "ValidationError", refused)
	s.SetQuirks(awstest.Quirks{IDTokenLifetime: -time.Second})
	_, refused = assume(t, s, goodToken(t, s), nil)
	assert.Equal(t, "ExpiredTokenException", refused)
	s.SetQuirks(awstest.Quirks{CredentialsLifetime: time.Minute})
	c, _ = assume(t, s, goodToken(t, s), nil)
	assert.InDelta(t, 60, time.Until(c.Expires).Seconds(), 5)

	req, err := http.NewRequest(http.MethodPost, s.URL(awstest.STS)+"/", strings.NewReader("Action=AssumeRoleWithWebIdentity&Version=2011-06-15"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 x")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, 403, resp.StatusCode, "it is to be unsigned")
}
