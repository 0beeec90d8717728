package registrytest

import (
	"bytes"
	"net/http"
	"strconv"
)

// Quirks are what a [Server] does wrong. The zero value is a good registry.
// Quirks of blobs hold for layers, not for configs, so that resolving works.
type Quirks struct {
	// User and Password protect everything with HTTP Basic authentication.
	User, Password string
	// Status, when not 0, answers every request below /v2/ but the login.
	Status int
	// StatusCount limits Status to the first requests; 0 means all.
	StatusCount int
	// RetryAfter is sent along with Status, in seconds, when not 0.
	RetryAfter int
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
	// WrongContentRange states a range that starts one byte later.
	WrongContentRange bool
	// CorruptBlob changes the last byte of every answer.
	CorruptBlob bool
	// ShortBlob serves blobs without their last byte, consistently.
	ShortBlob bool
	// LongBlob serves blobs with one byte more, consistently.
	LongBlob bool
	// CutBodyAfter closes the connection after so many bytes of a body, when
	// not 0.
	CutBodyAfter int64
	// Stall sends half of a body and then nothing, until the client is gone.
	Stall bool
	// Stalled, when not nil, is sent a value each time a body stalls, for a test
	// that wants to do something in the middle of it.
	Stalled chan<- struct{} `json:"-"`
	// RedirectTo, when not empty, answers requests for blobs with a redirect to
	// this URL, followed by the path and a signature, as blob storage has it.
	RedirectTo string
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

// faultyBody is the response writer of a blob: it applies the quirks that
// change what is on the wire.
type faultyBody struct {
	http.ResponseWriter
	request *http.Request
	quirks  Quirks
	left    int64 // to be written, of what Content-Length promised
	sent    int64
}

func (w *faultyBody) WriteHeader(status int) {
	h := w.Header()
	w.left, _ = strconv.ParseInt(h.Get("Content-Length"), 10, 64) // 0 if absent
	if h.Get("Content-Range") != "" && w.quirks.WrongContentRange {
		h.Set("Content-Range", "bytes 1-"+strconv.FormatInt(w.left, 10)+"/"+strconv.FormatInt(w.left+1, 10))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faultyBody) Write(p []byte) (int, error) {
	if w.quirks.CorruptBlob && int64(len(p)) == w.left {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	if cut := w.quirks.CutBodyAfter; cut > 0 && w.sent+int64(len(p)) > cut {
		_, _ = w.ResponseWriter.Write(p[:cut-w.sent])
		w.hang(false)
	}
	if w.quirks.Stall {
		_, _ = w.ResponseWriter.Write(p[:len(p)/2])
		w.hang(true)
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	w.left -= int64(n)
	return n, err
}

// hang sends what was written and ends the request without its rest: at once,
// or when the client gives up.
func (w *faultyBody) hang(wait bool) {
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	if wait {
		select {
		case w.quirks.Stalled <- struct{}{}:
		case <-w.request.Context().Done():
		}
		<-w.request.Context().Done()
	}
	panic(http.ErrAbortHandler)
}
