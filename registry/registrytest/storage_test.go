package registrytest_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

func TestStorage(t *testing.T) {
	server, blob := start(t)
	storage := registrytest.NewStorage(t, server, 2)
	server.SetQuirks(registrytest.Quirks{Storage: storage})
	redirect := func() string {
		t.Helper()
		a := get(t, blob)
		require.Equal(t, http.StatusTemporaryRedirect, a.StatusCode)
		return a.Header.Get("Location")
	}
	signed := redirect()
	assert.Contains(t, signed, "http://"+storage.Host()+"/")
	assert.Contains(t, signed, registrytest.Signature)

	a := get(t, signed, "Range", "bytes=4-8")
	assert.Equal(t, 206, a.StatusCode)
	assert.Equal(t, "bytes", a.body)
	assert.Equal(t, 400, get(t, signed, "Authorization", "Bearer token-1").StatusCode, "one way to authenticate is enough")
	assert.Equal(t, content, get(t, signed).body)
	assert.Equal(t, signed, redirect(), "the registry does not know yet that the signature was used up")
	assert.Equal(t, 403, get(t, signed).StatusCode)
	assert.Equal(t, 1, storage.Expired())
	assert.Equal(t, 403, get(t, "http://"+storage.Host()+"/?"+registrytest.Signature).StatusCode)

	again := redirect()
	assert.NotEqual(t, signed, again)
	assert.Equal(t, content, get(t, again).body)
	assert.Equal(t, 403, get(t, signed).StatusCode, "the old one stays expired")

	requests := storage.Requests()
	require.Len(t, requests, 7)
	assert.Equal(t, "bytes=4-8", requests[0].Header.Get("Range"))
	assert.Equal(t, int64(5), requests[0].Sent)
	assert.Equal(t, "Bearer token-1", requests[1].Header.Get("Authorization"))
}

// The quirks of bodies are the storage's too.
func TestStorageHasTheQuirksOfBodies(t *testing.T) {
	server, blob := start(t)
	storage := registrytest.NewStorage(t, server, 0)
	server.SetQuirks(registrytest.Quirks{Storage: storage, CutBodyAfter: 3, CutBodyCount: 1})
	signed := get(t, blob).Header.Get("Location")
	a := get(t, signed)
	assert.Equal(t, "the", a.body)
	require.ErrorIs(t, a.err, io.ErrUnexpectedEOF)
	assert.Equal(t, content, get(t, signed).body)
}
