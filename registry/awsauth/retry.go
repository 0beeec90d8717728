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
	longestWait = 20 * time.Second // as the SDK has it
	// attempts at STS, unless AWS_MAX_ATTEMPTS says otherwise: many jobs start at
	// the same time and are throttled together, so the SDK's three are few. With
	// the waits above eight take less than a minute.
	stsAttempts = 8
	// attempts at the OIDC endpoint, in each of those at STS.
	idTokenAttempts = 5
)

// retry calls try until it succeeds, says that it is of no use, or was called so
// many times.
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
		s.Logger.Debug("trying again", "what", what, "attempt", n, "wait", pause, "error", s.secrets.Error(err))
		if late := s.wait(ctx, pause); late != nil {
			return &givenUp{fmt.Errorf("%w: %w", late, err)}
		}
	}
}

// givenUp is the end of retries that were not in vain: there were enough of them.
type givenUp struct{ error }

func (e *givenUp) Unwrap() error { return e.error }

// errNoAnswer: an attempt took longer than it may. In the SDK's own words it was
// canceled, which is what others do.
var errNoAnswer = errors.New("no answer in time")

// passing tells whether an answer with this status may be another one later.
func passing(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
}

// brokenConnection tells whether a request that got no answer may get one later:
// not when the name does not exist or the certificate is not trusted.
func brokenConnection(err error) bool {
	var lookup *net.DNSError
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &lookup) && lookup.IsNotFound || errors.As(err, &certificate) {
		return false
	}
	return true
}

// passingSTS tells whether STS may give the same role later, for a new ID token.
func passingSTS(err error) bool {
	switch code(err) {
	// Both mean that STS could not reach GitHub, for its keys. It happens when
	// many jobs start: https://github.com/aws-actions/configure-aws-credentials/issues/299.
	case "InvalidIdentityToken", "IDPCommunicationError":
		return true
	case "ExpiredTokenException", "ExpiredToken":
		return true // of the ID token, and the next attempt has a new one
	}
	return passingAWS(err)
}

// passingAWS tells whether a service of AWS may answer the same request later.
func passingAWS(err error) bool {
	var answer *awshttp.ResponseError
	if errors.Is(err, errNoAnswer) || errors.As(err, &answer) && passing(answer.HTTPStatusCode()) {
		return true
	}
	return brokenConnection(err) && sdkretry.IsErrorRetryables(sdkretry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary
}
