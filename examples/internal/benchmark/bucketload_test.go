//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proxy counts what it sends, and each answer comes after the latency, also a second one
// on the same connection.
func TestProxy(t *testing.T) {
	t.Parallel()
	const size, latency = 200_000, 20 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		_, _ = w.Write(append(sent, make([]byte, size)...))
	}))
	defer server.Close()
	p := startProxy(strings.TrimPrefix(server.URL, "http://"), link{BytesPerSecond: 100_000_000, Latency: latency})
	defer p.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := range 2 {
		before, start := p.Written(), time.Now()
		resp, err := client.Post("http://"+p.Addr().String(), "", strings.NewReader("sent"))
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "sent", string(body[:4]))
		assert.Len(t, body, size+4)
		assert.GreaterOrEqual(t, time.Since(start), latency, i)
		// The last piece is counted once it was written.
		assert.Eventually(t, func() bool { return p.Written()-before > size }, 5*time.Second, time.Millisecond, i)
	}
}
