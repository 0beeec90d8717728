package server

import (
	"encoding/json"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// referrers serves the list of what refers to a digest, of all that is stocked. It is
// empty for what is not: such an answer must not be 404
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-referrers).
func (s *server) referrers(w http.ResponseWriter, r *http.Request, repository, name string) error {
	subject, err := parseDigest(name)
	if err != nil {
		return err
	}
	known, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return err
	}
	list := struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     []referrer      `json:"manifests"`
	}{2, types.OCIImageIndex, []referrer{}}
	// A media type has no space: that is a "+" which the client has not escaped.
	filter := strings.ReplaceAll(r.URL.Query().Get("artifactType"), " ", "+")
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	seen := map[v1.Hash]bool{}
	for _, i := range s.called(known, nil, ask(r, repository)) {
		documents := []*document{manifestOf(i)}
		for _, x := range i.indexes {
			documents = append(documents, &document{x.raw, x.digest, x.mediaType, i})
		}
		for _, d := range documents {
			if f, ok := referrerOf(d, subject); ok && !seen[d.digest] && (filter == "" || filter == f.ArtifactType) {
				seen[d.digest] = true
				list.Manifests = append(list.Manifests, f)
			}
		}
	}
	return answer(w, string(types.OCIImageIndex), list)
}

// referrer is the descriptor of a manifest or index that refers to another.
type referrer struct {
	MediaType    types.MediaType   `json:"mediaType"`
	Digest       v1.Hash           `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// referrerOf returns the descriptor of a document, and whether it refers to a digest.
func referrerOf(d *document, subject v1.Hash) (referrer, bool) {
	var parsed struct {
		Subject      struct{ Digest string }
		ArtifactType string
		Config       struct{ MediaType string }
		Annotations  map[string]string
	}
	if json.Unmarshal(d.raw, &parsed) != nil || parsed.Subject.Digest != subject.String() {
		return referrer{}, false
	}
	f := referrer{d.mediaType, d.digest, int64(len(d.raw)), parsed.ArtifactType, parsed.Annotations}
	if f.ArtifactType == "" {
		f.ArtifactType = parsed.Config.MediaType
	}
	return f, true
}
