package enginetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pull pulls HOST/REPOSITORY:TAG without TLS and keeps it under that name. Of the
// layers it asks only for those that it has not: podman by their chains, others by
// their blobs.
func (e *Engine) pull(w http.ResponseWriter, r *http.Request, reference string, q Quirks) {
	out := &answer{w: w}
	if q.NeverAsks {
		select {
		case <-r.Context().Done():
		case <-e.closed:
		}
		return
	}
	files, err := e.fetch(r, reference, q)
	switch {
	case err != nil:
	case q.PullFails != "":
		err = said(q.PullFails)
	case q.StopReadingAfter > 0:
		err = said("failed to copy: write /var/lib/docker/ingest/data: no space left on device")
	case q.ErrorInStream != "":
		err = said(q.ErrorInStream)
	}
	if err != nil {
		e.refuse(out, err)
		return
	}
	e.mu.Lock()
	_, err = e.keep(files, q)
	e.mu.Unlock()
	if err != nil {
		e.refuse(out, err)
		return
	}
	out.line(map[string]any{"status": "Status: Downloaded newer image for " + reference})
}

// fetch returns what was pulled as the archive that would hold it.
func (e *Engine) fetch(r *http.Request, reference string, q Quirks) (map[string][]byte, error) {
	host, rest, _ := strings.Cut(reference, "/")
	repository, tag, _ := strings.Cut(rest, ":")
	get := func(path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+host+"/v2/"+repository+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = failure("%s: %s: %s", path, resp.Status, body)
		}
		return body, err
	}
	raw, err := get("/manifests/" + tag)
	if err != nil {
		return nil, err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return nil, err
	}
	files := map[string][]byte{"oci-layout": []byte("{}"), blobPath(hashOf(raw)): raw}
	blob := func(h v1.Hash) error {
		content, err := get("/blobs/" + h.String())
		if err == nil && hashOf(content) != h {
			err = failure("failed commit on ref %q: unexpected commit digest %s, expected %s", h, hashOf(content), h)
		}
		files[blobPath(h)] = content
		return err
	}
	if err := blob(manifest.Config.Digest); err != nil {
		return nil, err
	}
	if q.WhilePulling != nil {
		q.WhilePulling()
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(files[blobPath(manifest.Config.Digest)], &config); err != nil {
		return nil, err
	}
	var paths []string
	for i, l := range manifest.Layers {
		paths = append(paths, blobPath(l.Digest))
		e.mu.Lock()
		_, has := e.store.blobs[l.Digest]
		if e.options.Kind != Containerd {
			_, has = e.store.chains[chainOf(config.RootFS.DiffIDs[:i+1])]
		}
		e.mu.Unlock()
		if has {
			continue
		}
		if err := blob(l.Digest); err != nil {
			return nil, err
		}
	}
	files["index.json"], _ = json.Marshal(v1.IndexManifest{Manifests: []v1.Descriptor{{
		MediaType: manifest.MediaType, Digest: hashOf(raw), Size: int64(len(raw)), Annotations: map[string]string{containerdName: reference},
	}}})
	files["manifest.json"], _ = json.Marshal([]map[string]any{{"Config": blobPath(manifest.Config.Digest), "RepoTags": []string{reference}, "Layers": paths}})
	return files, nil
}

// pulled returns what a request asks to be pulled; "" if it is none.
func (e *Engine) pulled(r *http.Request, path string) string {
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodPost:
		return ""
	case path == "/images/create" && e.options.Kind != Podman: // podman would use TLS
		return fmt.Sprintf("%s:%s", query.Get("fromImage"), query.Get("tag"))
	case path == "/libpod/images/pull" && e.options.Kind == Podman && query.Get("tlsVerify") == "false":
		return query.Get("reference")
	}
	return ""
}
