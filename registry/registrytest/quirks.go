package registrytest

import (
	"bytes"
	"time"
)

// Quirks are what a [Server] does wrong. The zero value is a good registry.
// Quirks of blobs hold for layers, not for configs, so that resolving works.
//
// A quirk with a field ...Count beside it happens so many times after
// [Server.SetQuirks] and then no more; 0 means every time. [Server.Happened]
// returns how often it did.
type Quirks struct {
	// User and Password protect everything with HTTP Basic authentication, or
	// with Token the token endpoint.
	User, Password string
	// Admits, when not nil, decides on a user and password in place of these, so
	// that they can end.
	Admits func(user, password string) bool `json:"-"`
	// Public serves requests without a credential too, but none with a wrong one,
	// as ghcr.io does.
	Public bool
	// Narrow denies everything but the login to a request with a credential, as if
	// it had no permission for this repository.
	Narrow bool
	// Token protects everything with Bearer tokens. The token endpoint is on
	// the same server; [Server.TokensIssued] counts them.
	Token bool
	// TokenUses is for how many requests a token is good, when not 0;
	// [Server.ExpireTokens] ends all of them at once.
	TokenUses int

	// Status, when not 0, answers every request below /v2/ but the login.
	Status      int
	StatusCount int
	// LoginStatus, when not 0, answers the login, which is GET /v2/.
	LoginStatus      int
	LoginStatusCount int
	// BlobStatus, when not 0, answers requests for blobs.
	BlobStatus      int
	BlobStatusCount int
	// RetryAfter is sent along with each Status of the above, in seconds, when
	// not 0. [Server.TooEarly] counts requests that do not wait.
	RetryAfter int
	// RetryAfterText is the message of each of these answers in place of the status's
	// text, as registries have that ask for a delay there: ghcr.io answers with
	// "toomanyrequests: retry-after: 880.092µs, allowed: 44000/minute". With
	// RequestsPerSecond, "%s" in it becomes the time until the next request is served.
	RetryAfterText string
	// RequestsPerSecond, when not 0, is how many requests below /v2/ are served in a
	// second, the login among them. Others are answered with 429 before anything is
	// looked at, and with Retry-After: that of RetryAfter, or the whole seconds until one
	// will be served; with RetryAfterText alone the header is absent.
	RequestsPerSecond float64
	// RequestBurst is how many may come at once after a pause. Default: 1.
	RequestBurst int
	// CountRefused makes each request that is refused so count like one that is
	// served, as far as that adds no more than a burst to the wait.
	CountRefused bool
	// Now is the clock of RequestsPerSecond. Default: time.Now.
	Now func() time.Time `json:"-"`
	// NotARegistry answers everything with a web page, status 404.
	NotARegistry bool

	// NoContentDigest leaves the Docker-Content-Digest header out.
	NoContentDigest bool
	// WrongContentDigest states another digest there than the manifest has.
	WrongContentDigest bool
	// CorruptManifest changes a byte of every manifest but keeps it JSON.
	CorruptManifest bool

	// CorruptConfig changes the last byte of every config.
	CorruptConfig bool

	// IgnoreRange answers ranges of blobs with the whole blob and 200.
	IgnoreRange bool
	// RangeStatus, when not 0, answers requests for blobs that have a Range header,
	// whatever is in it. Others get the whole blob.
	RangeStatus      int
	RangeStatusCount int
	// WrongContentRange states a range that starts one byte later. The bytes
	// are those that were asked for.
	WrongContentRange      bool
	WrongContentRangeCount int
	// CorruptBlob changes the last byte of an answer.
	CorruptBlob      bool
	CorruptBlobCount int
	// ShortBlob serves blobs without their last byte, consistently.
	ShortBlob bool
	// LongBlob serves blobs with one byte more, consistently.
	LongBlob bool
	// CutBodyAfter closes the connection after so many bytes of a body, when
	// not 0.
	CutBodyAfter int64
	CutBodyCount int
	// NoAnswer takes a request for a blob and answers nothing at all, until the
	// client is gone.
	NoAnswer      bool
	NoAnswerCount int
	// FirstByteDelay is how long the answer to a request for a blob takes to begin, as
	// that of a cache which fetches the whole blob first. It ends when the client goes.
	FirstByteDelay      time.Duration
	FirstByteDelayCount int
	// Stall sends the beginning of a body and then nothing, until the client is
	// gone.
	Stall      bool
	StallCount int
	// Stalled, when not nil, is sent a value each time a body stalls, for a test
	// that wants to do something in the middle of it.
	Stalled chan<- struct{} `json:"-"`

	// RedirectTo, when not empty, answers requests for blobs with a redirect to
	// this URL, followed by the path and a signature, as those of blob storage.
	RedirectTo string
	// Storage, when not nil, is where requests for blobs are redirected to. It
	// has the quirks of bodies that the registry has.
	Storage *Storage `json:"-"`
}

// Signature is what redirected URLs carry and no log line or error may show.
const Signature = "sig=TOP-SECRET-SIGNATURE"

// blob applies the quirks that change a blob's bytes.
func (q *Quirks) blob(content []byte) []byte {
	switch {
	case q.ShortBlob:
		return content[:len(content)-1]
	case q.LongBlob:
		return append(bytes.Clone(content), 0)
	}
	return content
}
