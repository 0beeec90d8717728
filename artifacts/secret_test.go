package artifacts_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// echoes are the forms in which a server may quote a secret.
func echoes(secret string) []string {
	return []string{secret, "Bearer " + secret, strings.ToLower(secret), base64.StdEncoding.EncodeToString([]byte(secret)), "x" + secret + "x", "'" + secret + "' \"" + secret + "\""}
}

// exposes reports whether an error, or one that it wraps, or a text shows a secret.
func exposes(secret, text string, err error) bool {
	for _, form := range echoes(secret)[:4] {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return true
		}
	}
	return err != nil && (exposes(secret, err.Error(), nil) || exposes(secret, "", errors.Unwrap(err)))
}

// hostile is an API and a storage that answer with what they were sent.
type hostile struct {
	run, list map[string]any
	status    int    // of the run
	body      string // of the run, in place of the JSON
	location  string // of the download
	storage   func(w http.ResponseWriter)
}

func (h *hostile) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	write := func(v any) { raw, _ := json.Marshal(v); _, _ = w.Write(raw) }
	switch {
	case r.URL.Host != "api.example.com":
		h.storage(w)
	case strings.HasSuffix(r.URL.Path, "/zip"):
		w.Header().Set("Location", h.location)
		w.WriteHeader(http.StatusFound)
	case strings.HasSuffix(r.URL.Path, "/artifacts"):
		write(map[string]any{"total_count": 1, "artifacts": []any{h.list}})
	case h.body != "" || h.status != 0:
		w.Header().Set("Content-Type", h.body)
		w.WriteHeader(max(h.status, 200))
		_, _ = w.Write([]byte(h.body))
	default:
		write(h.run)
	}
	return w.Result(), nil
}

// The API and the storage quote the token, or the URL that was signed, wherever they
// can: nothing that is printed or returned contains it.
func TestServersQuoteSecrets(t *testing.T) {
	const secretToken, signature = "ghs_Q7xSECRETdMf0Zk3aB9", "Zm9vYmFyTOP%2FSECRET%3D%3Dsig"
	fresh := func() *hostile {
		return &hostile{
			run: map[string]any{
				"id": 5, "name": "docker-builds", "path": "x.yml", "event": "push", "status": "completed", "conclusion": "success", "head_branch": "main",
				"head_sha": "2f5e", "html_url": "x", "repository": map[string]string{"full_name": repo}, "head_repository": map[string]string{"full_name": repo},
			},
			list:     map[string]any{"id": 7, "name": "docker-builds-artifacts-jammy", "size_in_bytes": 5, "digest": nil, "workflow_run": map[string]any{"id": 5}},
			location: "https://storage.example.com/blob/7?se=2026&sig=" + signature,
			storage: func(w http.ResponseWriter) {
				_, _ = w.Write(artifactstest.Zip(map[string]string{"a.txt": "jammy=" + own + ":1\n"}))
			},
		}
	}
	check := func(what string, h *hostile, secrets ...string) {
		t.Helper()
		var log bytes.Buffer
		client, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: h, Token: secretToken, RetryWait: time.Nanosecond, MaxWait: -1, Logger: logTo(&log)})
		require.NoError(t, err)
		build, err := client.Fetch(t.Context(), &artifacts.Request{Repository: repo, RunID: 5, Pattern: "*", Policy: artifacts.Policy{AnyReference: true}})
		printed := log.String()
		if err == nil {
			printed += fmt.Sprintf("%+v %+v %+v", build.Run, build.Outputs, build.Artifacts)
		}
		for _, secret := range append(secrets, secretToken) {
			assert.False(t, exposes(secret, printed, err), "%s: %v\n%s", what, err, printed)
		}
	}
	client, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: fresh(), Token: secretToken})
	require.NoError(t, err)
	_, err = client.Fetch(t.Context(), &artifacts.Request{Repository: repo, RunID: 5, Policy: allowOwn()})
	require.NoError(t, err, "without a quotation it works")

	for _, echo := range echoes(secretToken) {
		for _, field := range []string{"name", "path", "event", "status", "conclusion", "head_branch", "head_sha", "html_url", "created_at"} {
			h := fresh()
			h.run[field] = echo
			check("run "+field, h)
		}
		for _, field := range []string{"repository", "head_repository"} {
			h := fresh()
			h.run[field] = map[string]string{"full_name": echo}
			check("run "+field, h)
			h = fresh()
			h.run[field] = map[string]int{echo: 1}
			h.run["id"] = echo
			check("run "+field+" as a name", h)
		}
		for _, field := range []string{"name", "digest", "expires_at"} {
			h := fresh()
			h.list[field] = echo
			check("artifact "+field, h)
		}
		for _, code := range []int{200, 401, 403, 404, 410, 422, 429, 500, 301} {
			h := fresh()
			h.status, h.body = code, `{"message": `+fmt.Sprintf("%q", echo)+`}`
			check(fmt.Sprint("status ", code), h)
			h.body = echo
			check(fmt.Sprint("status ", code, " without JSON"), h)
		}
		for _, location := range []string{"https://" + echo + "/x", "https://storage.example.com/" + echo, "ftp://" + echo, echo + "://x/y", "http://127.0.0.1/?" + echo, "https://" + echo + "@127.0.0.1/", ":" + echo, echo} {
			h := fresh()
			h.location = location
			check("location "+location, h)
		}
	}
	for _, separator := range []string{"sig=", "sig='", "sig=\"", "sig= ", "a=1;sig=", "#", "x#sig=", "", "sig=%27"} {
		plain := strings.ReplaceAll(strings.ReplaceAll(signature, "%2F", "/"), "%3D", "=")
		for _, echo := range append(echoes(signature), plain, "https://storage.example.com/blob/7?se=2026&"+separator+signature) {
			for what, storage := range map[string]func(w http.ResponseWriter){
				"status":     func(w http.ResponseWriter) { w.WriteHeader(403); _, _ = w.Write([]byte(echo)) },
				"media type": func(w http.ResponseWriter) { w.Header().Set("Content-Type", echo); _, _ = w.Write([]byte(echo)) },
				"output": func(w http.ResponseWriter) {
					_, _ = w.Write(artifactstest.Zip(map[string]string{"a.txt": "jammy=" + echo}))
				},
				"output name": func(w http.ResponseWriter) {
					_, _ = w.Write(artifactstest.Zip(map[string]string{"a.txt": echo + "=x:y"}))
				},
				"file": func(w http.ResponseWriter) {
					_, _ = w.Write(artifactstest.Zip(map[string]string{echo: "x", "a.txt": "jammy=x:1"}))
				},
				"output file": func(w http.ResponseWriter) {
					_, _ = w.Write(artifactstest.Zip(map[string]string{echo + ".txt": "jammy=x:1"}))
				},
				"bad line": func(w http.ResponseWriter) {
					_, _ = w.Write(artifactstest.Zip(map[string]string{"a.txt": "jammy x " + echo}))
				},
				"entry": func(w http.ResponseWriter) { _, _ = w.Write(artifactstest.Zip(map[string]string{"../" + echo: "x"})) },
				"file name": func(w http.ResponseWriter) {
					w.Header().Set("Content-Type", "text/plain")
					w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", "../"+echo))
					_, _ = w.Write([]byte("jammy=x:1"))
				},
			} {
				h := fresh()
				h.location, h.storage = "https://storage.example.com/blob/7?se=2026&"+separator+signature, storage
				h.list["digest"], h.list["size_in_bytes"] = nil, 9
				check("storage "+what+" "+separator+" "+echo, h, signature, plain)
			}
		}
	}
}

// A URL of GitHub's storage has words and times in it that later answers, errors and
// logs have too: these are no quotation of a secret. One client reads run after run.
func TestOrdinaryStorageURLs(t *testing.T) {
	const artifact, file = "docker-builds-artifacts-jammy", "docker-builds-artifacts-jammy.txt"
	for _, location := range []string{
		"https://productionresultssa7.blob.core.windows.net/actions-results/0a6c9a5e-0c1f-4d86-a7c9-cd5d0a0c2f6e/workflow-job-run-95e7a1c9-f7d3-5e0e-8f0a-3a31a8e7c8b1/artifacts/0f5b0c6f.zip?rscd=attachment%3B+filename%3D%22" + file + "%22&rsct=application%2Foctet-stream&se=2026-11-26T09%3A30%3A00Z&sig=Zm9vYmFyQUJD%2Bd0x%2FMjM0NTY3ODkwMTIzNDU2Nzg5MDE%3D&ske=2026-11-26T21%3A00%3A00Z&skoid=ca7593d4-ee42-46cd-af88-8b886a2f84eb&sks=b&skt=2026-11-26T09%3A00%3A00Z&sp=r&spr=https&sr=b&st=2026-11-26T08%3A55%3A00Z&sv=2025-11-05",
		"https://pipelines.actions.githubusercontent.com/serviceHosts/0a6c9a5e/_apis/pipelines/1/runs/5/signedartifactscontent?artifactName=" + artifact + "&urlExpires=2026-11-26T09%3A30%3A00.0000000Z&urlSigningMethod=HMACV2&urlSignature=c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw%3D%3D",
		"https://s3.example.com/actions-results/workflow-run-5/" + artifact + ".zip?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLEEXAMPLE%2F20261126%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20261126T090000Z&X-Amz-Expires=60&response-content-disposition=attachment%3B%20filename%3D%22" + file + "%22&X-Amz-Signature=5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c6f5b0c",
	} {
		h := &hostile{
			run: map[string]any{
				"id": 5, "name": "workflow-job-run of the day", "path": ".github/workflows/x.yml", "event": "push", "status": "completed", "conclusion": "success", "head_branch": "main",
				"head_sha": "2f5e", "html_url": "https://github.com/" + repo + "/actions/runs/5", "repository": map[string]string{"full_name": repo}, "head_repository": map[string]string{"full_name": repo},
			},
			list:     map[string]any{"id": 7, "name": artifact, "size_in_bytes": 5, "digest": nil, "workflow_run": map[string]any{"id": 5}},
			location: location,
			storage: func(w http.ResponseWriter) {
				_, _ = w.Write(artifactstest.Zip(map[string]string{file: "docker-builds-jammy=" + own + ":workflow-job\n"}))
			},
		}
		var log bytes.Buffer
		client, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: h, Token: "ghs_token", Logger: logTo(&log), MaxWait: -1})
		require.NoError(t, err)
		for range 2 {
			build, err := client.Fetch(t.Context(), &artifacts.Request{Repository: repo, RunID: 5, Policy: allowOwn()})
			require.NoError(t, err, location)
			assert.Equal(t, file, build.Outputs[0].File)
		}
		h.status, h.body = 429, `{"message":"API rate limit, see `+artifact+` of 2026-11-26T09:00:00Z"}`
		_, err = client.Run(t.Context(), repo, 5)
		require.ErrorContains(t, err, "see "+artifact+" of 2026-11-26T09:00:00Z: the API asks to wait")
		assert.NotContains(t, err.Error()+log.String(), "(not shown)")
		assert.Contains(t, log.String(), "/actions/runs/5")
	}
}
