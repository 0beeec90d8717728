package awsauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/dockercache/dockercache/internal/backoff"
)

const (
	firstWait   = 500 * time.Millisecond
	longestWait = 20 * time.Second // that of the SDK
	// stsAttempts is how often STS is asked, unless AWS_MAX_ATTEMPTS is set: many
	// jobs start at the same time and are throttled together, so the SDK's three are
	// too few. With the waits above eight take less than a minute.
	stsAttempts = 8
	// idTokenAttempts is how often the OIDC endpoint is asked for each of those.
	idTokenAttempts = 5
)

// retry calls try until it succeeds, returns that another attempt is of no use, or
// was called so many times.
func (s *settings) retry(ctx context.Context, what string, attempts int, try func() (again bool, err error)) error {
	for n := 1; ; n++ {
		again, err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return &givenUp{fmt.Errorf("%w: %w", context.Cause(ctx), err)}
		case !again:
			return err
		case n >= attempts && n > 1:
			return &givenUp{fmt.Errorf("after %d attempts: %w", n, err)}
		case n >= attempts:
			return &givenUp{err}
		}
		pause := backoff.Delay(firstWait, longestWait, n)
		s.Logger.DebugContext(ctx, "trying again", "what", what, "attempt", n, "wait", pause, "error", s.secrets.Error(err))
		if late := s.wait(ctx, pause); late != nil {
			return &givenUp{fmt.Errorf("%w: %w", late, err)}
		}
	}
}

// A givenUp is a temporary error after the last attempt.
type givenUp struct{ error }

func (e *givenUp) Unwrap() error { return e.error }

// errNoAnswer: an attempt took longer than it may. The SDK's own error is that it
// was canceled, which would be for a caller to do.
var errNoAnswer = errors.New("no answer in time")

// mayPass reports whether an answer with this status may be another one later.
func mayPass(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
}

// brokenConnection reports whether a request that got no answer may get one later:
// not when the name does not exist or the certificate is not trusted.
func brokenConnection(err error) bool {
	var lookup *net.DNSError
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &lookup) && lookup.IsNotFound || errors.As(err, &certificate) {
		return false
	}
	return true
}

// isTemporarySTS reports whether STS may return the same role later, for a new ID
// token.
func isTemporarySTS(err error) bool {
	switch code(err) {
	// Both mean that STS could not reach GitHub, for its keys. It happens when
	// many jobs start: https://github.com/aws-actions/configure-aws-credentials/issues/299.
	case "InvalidIdentityToken", "IDPCommunicationError":
		return true
	case "ExpiredTokenException", "ExpiredToken":
		return true // of the ID token, and the next attempt has a new one
	}
	return isTemporary(err)
}

// isTemporary reports whether a service of AWS may answer the same request later.
func isTemporary(err error) bool {
	var answer *awshttp.ResponseError
	if errors.Is(err, errNoAnswer) || errors.As(err, &answer) && mayPass(answer.HTTPStatusCode()) {
		return true
	}
	return brokenConnection(err) && sdkretry.IsErrorRetryables(sdkretry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary
}
