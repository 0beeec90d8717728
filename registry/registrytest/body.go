package registrytest

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
)

// faultyBody is the response writer of a blob: it applies the quirks that
// change what is on the wire.
type faultyBody struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
	record  *Request // guarded by the server's mutex
	quirks  Quirks
	left    int64 // to be written, of what Content-Length promised
	sent    int64
	whole   bool // not one of those that are cut
}

func (w *faultyBody) WriteHeader(status int) {
	h := w.Header()
	w.left, _ = strconv.ParseInt(h.Get("Content-Length"), 10, 64) // 0 if absent
	var from int64
	var rest string
	if n, _ := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%s", &from, &rest); n == 2 && w.quirks.WrongContentRange &&
		w.server.first("WrongContentRange", w.quirks.WrongContentRangeCount) {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%s", from+1, rest))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faultyBody) Write(p []byte) (int, error) {
	q := w.quirks
	if q.CorruptBlob && int64(len(p)) == w.left && w.server.first("CorruptBlob", q.CorruptBlobCount) {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	if cut := q.CutBodyAfter; cut > 0 && w.sent+int64(len(p)) > cut && w.mayCut() {
		_, _ = w.send(p[:cut-w.sent])
		w.hang(false)
	}
	if q.Stall && w.sent == 0 && w.server.first("Stall", q.StallCount) {
		_, _ = w.send(p[:len(p)/2])
		w.hang(true)
	}
	return w.send(p)
}

// mayCut decides once for a body whether it is cut.
func (w *faultyBody) mayCut() bool {
	if w.whole {
		return false
	}
	w.whole = !w.server.first("CutBodyAfter", w.quirks.CutBodyCount)
	return !w.whole
}

func (w *faultyBody) send(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	w.left -= int64(n)
	w.server.mu.Lock()
	w.record.Sent += int64(n)
	w.server.mu.Unlock()
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
