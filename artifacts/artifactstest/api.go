package artifactstest

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	q := s.record(r, false)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	now := time.Now()
	if q.Now != 0 {
		now = time.Unix(q.Now, 0)
	}
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	switch {
	case q.RateLimit != 0 && s.first("RateLimit", q.RateLimitCount):
		limitRate(w, q, now)
	case q.Token != "" && r.Header.Get("Authorization") != "Bearer "+q.Token:
		refuse(w, http.StatusUnauthorized, "Bad credentials")
	case q.MovedTo != "":
		w.Header().Set("Location", q.MovedTo)
		refuse(w, http.StatusMovedPermanently, "Moved Permanently")
	case q.Status != 0 && s.first("Status", q.StatusCount):
		refuse(w, q.Status, http.StatusText(q.Status))
	case q.Page != "":
		_, _ = w.Write([]byte(q.Page))
	case q.NoPermission || !s.route(w, r, q):
		refuse(w, http.StatusNotFound, "Not Found")
	}
}

func limitRate(w http.ResponseWriter, q Quirks, now time.Time) {
	message := "You have exceeded a secondary rate limit"
	if q.Reset != 0 {
		message = "API rate limit exceeded"
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Unix()+int64(q.Reset), 10))
	}
	if q.RetryAfter != 0 {
		w.Header().Set("Retry-After", strconv.Itoa(q.RetryAfter))
	}
	refuse(w, q.RateLimit, message)
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_, _ = w.Write(marshal(map[string]string{"message": message}))
}

// route answers a request, and reports whether there is such a thing.
func (s *Server) route(w http.ResponseWriter, r *http.Request, q Quirks) bool {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, prefix+"/repos/"), "/")
	if len(parts) < 5 || parts[2] != "actions" {
		return false
	}
	repository := parts[0] + "/" + parts[1]
	id, _ := strconv.ParseInt(parts[4], 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch rest := strings.Join(append([]string{parts[3]}, parts[5:]...), "/"); rest {
	case "runs", "runs/artifacts":
		run, ok := s.runs[id]
		if !ok || !strings.EqualFold(run.Repository, repository) {
			return false
		}
		if rest == "runs" {
			if q.OtherRepository != "" {
				run.Repository = q.OtherRepository
			}
			_, _ = w.Write(marshal(run.object()))
			return true
		}
		s.list(w, r, q, id)
		return true
	case "artifacts/zip":
		for _, a := range s.artifacts {
			if a.id == id && strings.EqualFold(s.runs[a.run].Repository, repository) {
				s.redirect(w, q, a)
				return true
			}
		}
	}
	return false
}

// list answers with a page of a run's artifacts, the newest first.
func (s *Server) list(w http.ResponseWriter, r *http.Request, q Quirks, run int64) {
	all := []map[string]any{}
	for i := len(s.artifacts) - 1; i >= 0; i-- {
		if a := s.artifacts[i]; a.run == run {
			object := a.object()
			if q.OtherRun {
				object["workflow_run"] = map[string]any{"id": run + 1}
			}
			all = append(all, object)
		}
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	if size = min(max(size, 1), 100); q.PageSize > 0 {
		size = min(size, q.PageSize)
	}
	from := min(len(all), (max(page, 1)-1)*size)
	_, _ = w.Write(marshal(map[string]any{"total_count": len(all) + q.TooMany, "artifacts": all[from:min(len(all), from+size)]}))
}

// redirect answers a download. Each URL is valid once, where the real one is valid
// for a minute.
func (s *Server) redirect(w http.ResponseWriter, q Quirks, a *stored) {
	if q.Gone || a.Expired {
		refuse(w, http.StatusGone, "Artifact has expired")
		return
	}
	s.urls++
	to := q.RedirectTo
	if to == "" {
		to = "http://" + s.blobs.Addr().String()
	}
	w.Header().Set("Location", fmt.Sprintf("%s/blob/%d?n=%d&%s", to, a.id, s.urls, Signature))
	w.WriteHeader(http.StatusFound)
}

// serveStorage answers as Azure's blob storage does, which refuses a request with
// an Authorization header; here also one with a cookie or a referrer.
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
	if w.Header().Set("Content-Type", a.ContentType); a.ContentType == "-" {
		w.Header()["Content-Type"] = nil // not what net/http would guess
	}
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
