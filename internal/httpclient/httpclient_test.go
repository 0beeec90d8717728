package httpclient

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIsLoopback(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.9.1", "::1"} {
		assert.True(t, IsLoopback(host), host)
	}
	for _, host := range []string{"", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "0.0.0.0", "::"} {
		assert.False(t, IsLoopback(host), host)
	}
}

func TestPlaceOfHost(t *testing.T) {
	for host, want := range map[string]Place{
		"registry-7": Public, "r7.example": Public, "x7": Public, "7.example.com": Public,
		"127.1": Here, "2130706433": Here, "0x7f000001": Here, "0X7F.1": Here, "0177.0.0.1": Here, "127.0.0.08.": Here, "a.99999999999999999999999": Here,
		"": Public, "registry.example.com": Public, "localhost.example.com": Public, "8.8.8.8": Public, "2001:4860::8888": Public, "64:ff9b::808:808": Public, "2002:808:808::1": Public, "172.32.0.1": Public,
		"10.0.0.7": Private, "172.16.0.1": Private, "192.168.1.1": Private, "fd00:ec2::254": Private, "::ffff:10.0.0.7": Private, "64:ff9b::a00:7": Private,
		"169.254.169.254": LinkLocal, "fe80::1%eth0": LinkLocal, "[fe80::1]": LinkLocal, "::ffff:169.254.169.254": LinkLocal, "64:ff9b::a9fe:a9fe": LinkLocal, "64:ff9b:1::a9fe:a9fe": LinkLocal, "2002:a9fe:a9fe::": LinkLocal, "::a9fe:a9fe": LinkLocal,
		"localhost": Here, "LOCALHOST.": Here, "x.localhost": Here, "127.0.0.1": Here, "127.8.9.1": Here, "::1": Here, "[::1]": Here, "0.0.0.0": Here, "0.1.2.3": Here, "::": Here, "::ffff:127.0.0.1": Here, "::ffff:0:0": Here, "64:ff9b::7f00:1": Here, "2002:7f00:1::": Here,
	} {
		assert.Equal(t, want, PlaceOfHost(host), host)
	}
}

// The check gets the address that the name was resolved to, before a connection is
// made.
func TestAddressCheck(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	refused := errors.New("refused")
	client := &http.Client{Transport: NewTransport()}
	var got []string
	get := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:"+port, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.ErrorIs(t, get(WithAddressCheck(t.Context(), func(address string) error { got = append(got, address); return refused })), refused)
	assert.Contains(t, got, "127.0.0.1:"+port)
	require.NoError(t, get(t.Context()))
}
