package registrytest_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

// login gets a token and returns the Authorization header with it.
func login(t *testing.T, server *registrytest.Server) string {
	t.Helper()
	a := get(t, "http://"+server.Host()+"/token?scope=any")
	require.Equal(t, http.StatusOK, a.StatusCode)
	var got struct{ Token string }
	require.NoError(t, json.Unmarshal([]byte(a.body), &got))
	return "Bearer " + got.Token
}

func TestToken(t *testing.T) {
	server, blob := start(t)
	server.SetQuirks(registrytest.Quirks{Token: true, TokenUses: 2})
	status := func(authorization string) int { return get(t, blob, "Authorization", authorization).StatusCode }

	a := get(t, blob)
	require.Equal(t, http.StatusUnauthorized, a.StatusCode)
	assert.Equal(t, `Bearer realm="http://`+server.Host()+`/token",service="registrytest"`, a.Header.Get("WWW-Authenticate"))
	for _, bad := range []string{"", "Bearer token-1", "Bearer token-0", "Bearer x", "Basic token-1"} {
		assert.Equal(t, http.StatusUnauthorized, status(bad), bad)
	}

	first, second := login(t, server), login(t, server)
	assert.Equal(t, 2, server.TokensIssued())
	assert.Equal(t, 200, status(first))
	assert.Equal(t, 200, status(first))
	assert.Equal(t, 401, status(first), "it was used up")
	assert.Equal(t, 200, status(second))
	server.ExpireTokens()
	assert.Equal(t, 401, status(second))
	assert.Equal(t, 200, status(login(t, server)))
}

// With a password it is the token that needs it, not the blob.
func TestTokenForAPassword(t *testing.T) {
	server, blob := start(t)
	server.SetQuirks(registrytest.Quirks{Token: true, User: "user", Password: "password"})
	token := "http://" + server.Host() + "/token"
	basic := "Basic dXNlcjpwYXNzd29yZA=="
	assert.Equal(t, 401, get(t, token).StatusCode)
	assert.Equal(t, 200, get(t, token, "Authorization", basic).StatusCode)
	assert.Equal(t, 401, get(t, blob, "Authorization", basic).StatusCode)
	assert.Equal(t, 401, get(t, blob, "Authorization", server.Tokens()[0]).StatusCode)
	assert.Equal(t, 200, get(t, blob, "Authorization", "Bearer "+server.Tokens()[0]).StatusCode)
}
