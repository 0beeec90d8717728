package artifactstest

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// serveStorage answers as Azure's blob storage does: it refuses a request with
// an Authorization header, and here also one with a cookie or a referrer.
func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	q := s.record(r, true)
	for _, header := range []string{"Authorization", "Cookie", "Referer"} {
		if r.Header.Get(header) != "" {
			refuseXML(w, http.StatusBadRequest, "InvalidAuthenticationInfo")
			return
		}
	}
	number, _ := strconv.Atoi(r.URL.Query().Get("n"))
	s.mu.Lock()
	again := s.used[number]
	s.used[number] = true
	s.mu.Unlock()
	id, _ := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/blob/"), 10, 64)
	switch {
	case again || q.ExpiredURL && s.first("ExpiredURL", q.ExpiredURLCount):
		refuseXML(w, http.StatusForbidden, "AuthenticationFailed")
		return
	case q.StorageStatus != 0 && s.first("StorageStatus", q.StorageStatusCount):
		refuseXML(w, q.StorageStatus, "ServerBusy")
		return
	}
	s.mu.Lock()
	var found *stored
	for _, a := range s.artifacts {
		if a.id == id {
			found = a
		}
	}
	s.mu.Unlock()
	if found == nil {
		refuseXML(w, http.StatusNotFound, "BlobNotFound")
		return
	}
	s.send(w, r, q, found)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, q Quirks, a *stored) {
	if q.Download != nil {
		select {
		case q.Download <- struct{}{}:
		case <-r.Context().Done():
		}
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	body := bytes.Clone(a.Raw)
	if q.WrongBytes && s.first("WrongBytes", q.WrongBytesCount) {
		body[len(body)-1] ^= 1
	}
	if q.ShortBody {
		body = body[:len(body)-1]
	}
	w.Header().Set("Content-Type", a.ContentType)
	if a.Disposition != "" {
		w.Header().Set("Content-Disposition", a.Disposition)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if q.CutBody && s.first("CutBody", q.CutBodyCount) {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

func refuseXML(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<?xml version=\"1.0\"?><Error><Code>" + code + "</Code></Error>"))
}
