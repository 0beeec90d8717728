package awstest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

// idToken asks for an ID token as a job does.
func idToken(t *testing.T, s *awstest.Server, query, bearer string) (status int, token string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.Env()["ACTIONS_ID_TOKEN_REQUEST_URL"]+query, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", bearer)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var answer struct{ Value string }
	_ = json.Unmarshal(body, &answer)
	return resp.StatusCode, answer.Value
}

func goodToken(t *testing.T, s *awstest.Server) string {
	t.Helper()
	status, token := idToken(t, s, "&audience=sts.amazonaws.com", "bearer "+s.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	require.Equal(t, 200, status)
	return token
}

func TestIDTokens(t *testing.T) {
	s := awstest.New(t)
	token := goodToken(t, s)
	assert.Len(t, strings.Split(token, "."), 3)
	assert.Contains(t, s.Secrets(), token)
	assert.NotEqual(t, token, goodToken(t, s))

	status, _ := idToken(t, s, "", "bearer wrong")
	assert.Equal(t, 401, status)
	status, _ = idToken(t, s, "", s.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	assert.Equal(t, 401, status)
	status, _ = idToken(t, s, "&api-version=1&x=", "bearer "+s.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	assert.Equal(t, 200, status)
	resp, err := http.Get(s.URL(awstest.OIDC) + "/token?audience=x")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, 404, resp.StatusCode, "the query that was there is lost")
	assert.Equal(t, []string{"sts.amazonaws.com"}, s.Requests(awstest.OIDC)[0].Form["audience"])
}
