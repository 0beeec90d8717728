package awstest_test

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

const role = "arn:aws:iam::123456789012:role/name"

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Each quirk with a count shows so many times.
func TestCounts(t *testing.T) {
	s := awstest.New(t)
	keys := s.NewCredentials()
	c := aws.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey}
	s.SetQuirks(awstest.Quirks{ECRThrottled: true, ECRThrottledCount: 2})
	assert.Equal(t, []string{"ThrottlingException", "ThrottlingException", ""}, []string{login(s, c, nil), login(s, c, nil), login(s, c, nil)})
	assert.Equal(t, 2, s.Happened("ECRThrottled"))
	assert.Equal(t, "ThrottlingException", s.Requests(awstest.ECR)[0].Refused)
	s.SetQuirks(awstest.Quirks{OIDCStatus: 503, OIDCStatusCount: 1})
	status, _ := idToken(t, s, "", "")
	assert.Equal(t, 503, status)
	goodToken(t, s)
}

// The environment keeps what the machine has out of tests.
func TestSetenv(t *testing.T) {
	t.Setenv("AWS_PROFILE", "another user's")
	t.Setenv("AWS_ACCESS_KEY_ID", "another user's")
	s := awstest.New(t)
	s.Setenv(t)
	assert.Empty(t, os.Getenv("AWS_PROFILE"))
	assert.Empty(t, os.Getenv("AWS_ACCESS_KEY_ID"))
	u, err := url.Parse(os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"))
	require.NoError(t, err)
	assert.NotEmpty(t, u.RawQuery)
	assert.Equal(t, s.Secrets()[0], os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	resp, err := http.Get(s.URL("elsewhere"))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, 404, resp.StatusCode)
}
