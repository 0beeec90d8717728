package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
	"time"
)

var (
	authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)

	errExpired      = &refusal{http.StatusBadRequest, "ExpiredTokenException", "The security token included in the request is expired"}
	errUnrecognized = &refusal{http.StatusBadRequest, "UnrecognizedClientException", "The security token included in the request is invalid."}
	errUnsigned     = &refusal{http.StatusBadRequest, "MissingAuthenticationTokenException", "Missing Authentication Token"}
	errSignature    = &refusal{http.StatusBadRequest, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."}
	errScope        = &refusal{http.StatusBadRequest, "InvalidSignatureException", "Credential should be scoped to a valid region and service."}
)

// checkSignature checks the signature of a request as AWS does, by
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html,
// and counts the use of the credentials.
func (s *Server) checkSignature(r *http.Request, request *Request, q Quirks) *refusal {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return errUnsigned
	}
	id, day, region, service, signed, signature := m[1], m[2], m[3], m[4], m[5], m[6]
	request.Region = region
	date := r.Header.Get("X-Amz-Date")
	signedAt, err := time.Parse("20060102T150405Z", date)
	now := s.now(q)
	switch {
	case err != nil || !strings.HasPrefix(date, day):
		return errSignature
	case now.Sub(signedAt).Abs() > 5*time.Minute:
		return &refusal{http.StatusBadRequest, "InvalidSignatureException", "Signature expired: " + date + " is now earlier than " + now.Add(-5*time.Minute).UTC().Format("20060102T150405Z")}
	case service != request.Service || service == ECRPublic && region != "us-east-1":
		return errScope
	case s.shows("UnrecognizedClient", q.UnrecognizedClient, q.UnrecognizedClientCount):
		return errUnrecognized
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.credentials[id]
	switch {
	case c == nil:
		return errUnrecognized
	case c.expired || !c.expires.IsZero() && !now.Before(c.expires) || q.CredentialUses > 0 && c.uses >= q.CredentialUses:
		return errExpired
	case c.SessionToken != r.Header.Get("X-Amz-Security-Token") || c.SessionToken != "" && !strings.Contains(signed, "x-amz-security-token"):
		return errUnrecognized
	case !hmac.Equal([]byte(signature), []byte(sign(r, request.Body, date, day, region, service, signed, c.SecretAccessKey))):
		return errSignature
	}
	c.uses++
	return nil
}

// sign calculates the signature that a request with these signed headers has.
func sign(r *http.Request, body, date, day, region, service, signed, secret string) string {
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n"
	for name := range strings.SplitSeq(signed, ";") {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host // net/http takes it out of the header
		}
		canonical += name + ":" + strings.TrimSpace(value) + "\n"
	}
	canonical += "\n" + signed + "\n" + sum(body)
	key := []byte("AWS4" + secret)
	for _, text := range []string{day, region, service, "aws4_request"} {
		key = mac(key, text)
	}
	scope := day + "/" + region + "/" + service + "/aws4_request"
	return hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+sum(canonical)))
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
