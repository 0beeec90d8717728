package httpclient

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIsLoopback(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.9.1", "::1"} {
		assert.True(t, IsLoopback(host), host)
	}
	for _, host := range []string{"", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "0.0.0.0", "::"} {
		assert.False(t, IsLoopback(host), host)
	}
}

func TestMayRedirect(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"registry.example.com", "storage.example.com", true},
		{"registry.example.com", "10.0.0.7", true},
		{"registry.example.com", "127.0.0.1", false},
		{"registry.example.com", "localhost", false},
		{"registry.example.com", "169.254.169.254", false},
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1", "169.254.169.254", true},
	} {
		assert.Equal(t, c.want, MayRedirect(c.from, c.to), c)
	}
}
