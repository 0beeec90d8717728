package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// tags serves the list of a repository's tags.
func (s *server) tags(w http.ResponseWriter, r *http.Request, repository string) error {
	images, err := s.images(r, repository, false)
	if err != nil {
		return err
	}
	var tags []string
	for _, i := range images {
		if d, _ := s.byTag(images, i.tag); d != nil {
			tags = append(tags, i.tag)
		}
	}
	tags, err = page(w, r, tags)
	if err != nil {
		return err
	}
	return answer(w, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{repository, tags})
}

// repositories serves the list of repositories, under the names with a host: none of those
// is ambiguous. A host with a port cannot be part of such a name.
func (s *server) repositories(w http.ResponseWriter, r *http.Request) error {
	known, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return err
	}
	var names []string
	for name := range known.names {
		if own, ok := strings.CutPrefix(name, host(s.Registry)+"/"); ok && strings.Contains(s.Registry, ":") {
			name = own
		}
		if !strings.Contains(name, ":") {
			names = append(names, name)
		}
	}
	names, err = page(w, r, names)
	if err != nil {
		return err
	}
	return answer(w, "application/json", struct {
		Repositories []string `json:"repositories"`
	}{names})
}

// page returns the part of a list that was asked for, each entry once, in order
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-tags).
func page(w http.ResponseWriter, r *http.Request, all []string) ([]string, error) {
	query := r.URL.Query()
	all = append([]string{}, all...) // nil would be null in JSON
	slices.Sort(all)
	all = slices.Compact(all)
	if last := query.Get("last"); last != "" {
		all = slices.DeleteFunc(all, func(entry string) bool { return entry <= last })
	}
	if !query.Has("n") {
		return all, nil
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 {
		return nil, &refusal{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", fmt.Sprintf("n=%q is not a number of entries", query.Get("n"))}
	}
	if n >= len(all) {
		return all, nil
	}
	if all = all[:n]; n > 0 {
		next := url.URL{Path: r.URL.Path}
		query.Set("last", all[n-1])
		next.RawQuery = query.Encode()
		w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", next.String()))
	}
	return all, nil
}

func answer(w http.ResponseWriter, mediaType string, list any) error {
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
	return nil
}
