package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxManifest is the largest manifest that is read, in bytes: what the
// distribution registry accepts.
const maxManifest = 4 << 20

// accepted are the kinds of manifest that are asked for. Without the first two
// an old registry converts to schema 1.
var accepted = []string{
	string(types.DockerManifestSchema2), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.OCIImageIndex),
}

// A manifest is what a registry served under a tag or digest, proven to have
// that digest and to be of a known kind.
type manifest struct {
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
}

// manifest fetches the manifest called tagOrDigest. With a digest the bytes
// must have it.
func (r *repository) manifest(ctx context.Context, tagOrDigest string) (*manifest, error) {
	resp, err := r.get(ctx, "manifests/"+tagOrDigest, http.Header{"Accept": accepted}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	fail := func(kind error, format string, args ...any) (*manifest, error) {
		return nil, &Error{Op: "read manifest", Source: r.name + joiner(tagOrDigest) + tagOrDigest, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	if len(raw) > maxManifest {
		return fail(ErrUnsupported, "more than %d bytes", maxManifest)
	}
	contentType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" if malformed
	var head struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fail(ErrAnswer, "the manifest is not JSON (%d bytes of type %q): %w", len(raw), contentType, err)
	}
	if head.SchemaVersion == 1 {
		return fail(ErrUnsupported, "schema version 1: push the image again with a current tool")
	}
	m := &manifest{raw: raw, digest: sha256Of(raw), mediaType: head.MediaType}
	served := types.MediaType(contentType)
	switch {
	case head.MediaType == "":
		m.mediaType = served
	case served.IsImage() && served != head.MediaType, served.IsIndex() && served != head.MediaType:
		return fail(ErrAnswer, "served as %q, but says of itself %q", served, head.MediaType)
	}
	if !m.mediaType.IsImage() && !m.mediaType.IsIndex() {
		return fail(ErrUnsupported, "media type %q", m.mediaType)
	}
	if isDigest(tagOrDigest) && m.digest.String() != tagOrDigest {
		return fail(ErrDigest, "its bytes have the digest %s", m.digest)
	}
	// Absent is fine, the header is optional. A digest of another algorithm
	// cannot be compared.
	if stated := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(stated, "sha256:") && stated != m.digest.String() {
		return fail(ErrDigest, "the registry states %s, its bytes have the digest %s", stated, m.digest)
	}
	return m, nil
}

func isDigest(tagOrDigest string) bool { return strings.Contains(tagOrDigest, ":") }

func joiner(tagOrDigest string) string {
	if isDigest(tagOrDigest) {
		return "@"
	}
	return ":"
}

func sha256Of(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
