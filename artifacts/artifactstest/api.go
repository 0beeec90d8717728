package artifactstest

import (
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
		refuseForNow(w, q, now)
	case q.Token != "" && r.Header.Get("Authorization") != "Bearer "+q.Token:
		say(w, http.StatusUnauthorized, "Bad credentials")
	case q.MovedTo != "":
		w.Header().Set("Location", q.MovedTo)
		say(w, http.StatusMovedPermanently, "Moved Permanently")
	case q.Status != 0 && s.first("Status", q.StatusCount):
		say(w, q.Status, http.StatusText(q.Status))
	case q.Page != "":
		_, _ = w.Write([]byte(q.Page))
	case q.NoPermission || !s.route(w, r, q):
		say(w, http.StatusNotFound, "Not Found")
	}
}

func refuseForNow(w http.ResponseWriter, q Quirks, now time.Time) {
	message := "You have exceeded a secondary rate limit"
	if q.Reset != 0 {
		message = "API rate limit exceeded"
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Unix()+int64(q.Reset), 10))
	}
	if q.RetryAfter != 0 {
		w.Header().Set("Retry-After", strconv.Itoa(q.RetryAfter))
	}
	say(w, q.RateLimit, message)
}

func say(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_, _ = w.Write(marshal(map[string]string{"message": message}))
}

// route answers a request, or tells that there is no such thing.
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

// redirect answers a download. Each URL is good once, where the real one is good
// for a minute.
func (s *Server) redirect(w http.ResponseWriter, q Quirks, a *stored) {
	if q.Gone || a.Expired {
		say(w, http.StatusGone, "Artifact has expired")
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
