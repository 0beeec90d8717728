package awsauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/backoff"
)

func TestBackoff(t *testing.T) {
	for attempt, full := range map[int]time.Duration{
		1: 500 * time.Millisecond, 2: time.Second, 3: 2 * time.Second, 6: 16 * time.Second, 7: 20 * time.Second, 8: 20 * time.Second, 1000: 20 * time.Second,
	} {
		different := map[time.Duration]bool{}
		for range 100 {
			pause := backoff.Delay(firstWait, longestWait, attempt)
			different[pause] = true
			assert.True(t, pause >= full/2 && pause <= full, "attempt %d: %v", attempt, pause)
		}
		assert.Greater(t, len(different), 1, "many must not come back together")
	}
}

// The error of a retry without time left has that, and what failed before.
func TestRetryEnds(t *testing.T) {
	s, err := newSettings(nil)
	require.NoError(t, err)
	why, failure := errors.New("stopped"), errors.New("no")
	ctx, cancel := context.WithCancelCause(t.Context())
	tried := 0
	err = s.retry(ctx, "x", 5, func() (bool, error) { tried++; cancel(why); return true, failure })
	require.ErrorIs(t, err, why)
	require.ErrorIs(t, err, failure)
	assert.Equal(t, 1, tried)
}

func TestBrokenConnection(t *testing.T) {
	for _, again := range []error{io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "dial", Err: errors.New("refused")}, &net.DNSError{IsTimeout: true}} {
		assert.True(t, brokenConnection(again), again)
	}
	for _, never := range []error{&net.DNSError{IsNotFound: true}, fmt.Errorf("x: %w", &tls.CertificateVerificationError{Err: errors.New("expired")})} {
		assert.False(t, brokenConnection(never), never)
	}
}
