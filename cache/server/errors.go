package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// refusal is an error that the API has a code for
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes).
type refusal struct {
	status        int
	code, message string
}

func (e *refusal) Error() string { return e.message }

var (
	errReadOnly     = &refusal{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only: it serves what a cache directory holds"}
	errUnauthorized = &refusal{http.StatusUnauthorized, "UNAUTHORIZED", "credentials are required"}
	errDenied       = &refusal{http.StatusForbidden, "DENIED", "access is denied"}
	errUpstream     = &refusal{http.StatusBadGateway, "UNAVAILABLE", "the image's own registry does not give the image at the moment"}
	errNoPath       = &refusal{http.StatusNotFound, "UNSUPPORTED", "no such path: manifests, blobs and lists of tags are served, below /v2/"}
)

func unknownName(repository string) error {
	return &refusal{http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("no tarball in the directory holds an image of the repository %q", repository)}
}

func unknownManifest(repository, reference string) error {
	return &refusal{http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("no tarball in the directory holds %q of the repository %q", reference, repository)}
}

func notForAll(repository, reference string) error {
	return &refusal{http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("%q of the repository %q is not stocked for all platforms that clients may have: what there is has digests of its own", reference, repository)}
}

func unknownBlob(repository, digest string) error {
	return &refusal{http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("no tarball in the directory holds the blob %q of the repository %q", digest, repository)}
}

func badDigest(digest string) error {
	return &refusal{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is not a digest", digest)}
}

// refuse answers in the form of the distribution specification. An error that is no refusal
// concerns the directory: the client learns that, and no paths.
func refuse(w http.ResponseWriter, err error) {
	r := &refusal{http.StatusInternalServerError, "UNKNOWN", "the cache directory cannot be read"}
	errors.As(err, &r)
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]entry{"errors": {{r.code, r.message}}}) // strings always encode
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(r.status)
	_, _ = w.Write(body)
}
