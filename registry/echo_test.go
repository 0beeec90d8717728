package registry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// What a hostile registry and its token server were sent.
const (
	echoPassword = `Pass"W0rd+/ ;#'&é<x>-of-the-user`
	echoToken    = "Bearer-T0ken-of-the-registry_x.y.z"
	echoIdentity = "Identity-T0ken-of-the-user"
	echoRefresh  = "Refresh-T0ken-of-the-server"
)

// echoes are the forms in which it is sent back, with a password or an identity token.
func echoes(identity bool) map[string]string {
	all := map[string]string{}
	secrets := map[string]string{"password": echoPassword, "login": base64.StdEncoding.EncodeToString([]byte("user:" + echoPassword))}
	if identity {
		secrets = map[string]string{"identity": echoIdentity, "refresh": echoRefresh}
	}
	secrets["token"] = echoToken
	for name, secret := range secrets {
		all[name] = secret
		all[name+" in a query"] = url.QueryEscape(secret)
		all[name+" in a path"] = strings.ToLower(url.PathEscape(secret))
		quoted, _ := json.Marshal(secret) // a string: cannot fail
		all[name+" in JSON"] = strings.Trim(string(quoted), `"`)
		all[name+" in quotes"] = fmt.Sprintf("%q", secret)
	}
	return all
}

// leaked reports which secret is in a text, in any letters.
func leaked(text string) string {
	text = strings.ToLower(text)
	all := echoes(false)
	maps.Copy(all, echoes(true))
	for name, secret := range all {
		if strings.Contains(text, strings.ToLower(secret)) || strings.Contains(text, strings.ToLower(strings.Trim(fmt.Sprintf("%q", secret), `"`))) {
			return name
		}
	}
	for _, part := range []string{"w0rd", "t0ken", base64.RawStdEncoding.EncodeToString([]byte("user:Pass"))[:8]} {
		if strings.Contains(text, strings.ToLower(part)) {
			return part
		}
	}
	return ""
}

// Whatever a registry sends back of what it was sent, and wherever, it is in no error
// and no log line.
func TestNothingIsEchoed(t *testing.T) {
	t.Run("password", func(t *testing.T) { nothingIsEchoed(t, false, fixed{"user", echoPassword}) })
	t.Run("identity token", func(t *testing.T) {
		nothingIsEchoed(t, true, keychainOf{authn.FromConfig(authn.AuthConfig{IdentityToken: echoIdentity})})
	})
}

func nothingIsEchoed(t *testing.T, identity bool, keychain authn.Keychain) {
	manifest := func(mediaType string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":"sha256:%064d","size":1}}`, mediaType, mediaType, 1)
	}
	index := func(platform string) string {
		p, _ := json.Marshal(platform)
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"sha256:%064d","platform":{"os":%s,"architecture":"x"}}]}`, 1, p)
	}
	refuse := func(w http.ResponseWriter, status int, text string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": text, "message": text, "detail": text}}})
	}
	header := func(text string) string { // as far as one can be in a header
		return strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, text)
	}
	raw := func(w http.ResponseWriter, answer string) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, text string){
		"401": func(w http.ResponseWriter, _ *http.Request, text string) { refuse(w, 401, text) },
		"404": func(w http.ResponseWriter, _ *http.Request, text string) { refuse(w, 404, text) },
		"503": func(w http.ResponseWriter, _ *http.Request, text string) { refuse(w, 503, text) },
		"418": func(w http.ResponseWriter, _ *http.Request, text string) {
			w.WriteHeader(418)
			_, _ = io.WriteString(w, text)
		},
		"body": func(w http.ResponseWriter, _ *http.Request, text string) { _, _ = io.WriteString(w, text) },
		"content type": func(w http.ResponseWriter, _ *http.Request, text string) {
			w.Header().Set("Content-Type", "application/"+header(text))
			_, _ = io.WriteString(w, "{}")
		},
		"media type": func(w http.ResponseWriter, _ *http.Request, text string) { _, _ = io.WriteString(w, manifest(text)) },
		"platform":   func(w http.ResponseWriter, _ *http.Request, text string) { _, _ = io.WriteString(w, index(text)) },
		"digest": func(w http.ResponseWriter, _ *http.Request, text string) {
			w.Header().Set("Docker-Content-Digest", "sha256:"+header(text))
			_, _ = io.WriteString(w, manifest("application/vnd.oci.image.manifest.v1+json"))
		},
		"path of location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", "http://127.0.0.1:1/"+header(text))
			w.WriteHeader(307)
		},
		"query of location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", "http://127.0.0.1:1/?"+header(text))
			w.WriteHeader(307)
		},
		"host of location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", "http://"+header(text)+"/")
			w.WriteHeader(307)
		},
		"user of location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", "http://"+header(text)+"@127.0.0.1:1/")
			w.WriteHeader(307)
		},
		"scheme of location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", header(text)+"://127.0.0.1:1/")
			w.WriteHeader(307)
		},
		"malformed location": func(w http.ResponseWriter, r *http.Request, text string) {
			w.Header().Set("Location", "http://127.0.0.1:1/%zz"+header(text))
			w.WriteHeader(307)
		},
		"status line": func(w http.ResponseWriter, _ *http.Request, text string) { raw(w, "HTTP/1.1 "+text+"\r\n\r\n") },
		"header line": func(w http.ResponseWriter, _ *http.Request, text string) {
			raw(w, "HTTP/1.1 200 OK\r\n"+text+"\r\n\r\n")
		},
		"content length": func(w http.ResponseWriter, _ *http.Request, text string) {
			raw(w, "HTTP/1.1 200 OK\r\nContent-Length: "+text+"\r\n\r\n")
		},
		"retry after": func(w http.ResponseWriter, _ *http.Request, text string) {
			w.Header().Set("Retry-After", header(text))
			w.WriteHeader(429)
		},
	} {
		for where, path := range map[string]string{"manifest": "/manifests/", "token": "/token"} {
			for form, text := range echoes(identity) {
				if where == "token" && (strings.HasPrefix(form, "token") || strings.HasPrefix(form, "refresh")) {
					continue // not sent yet
				}
				f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case strings.Contains(r.URL.Path, path) && (path == "/token" || r.Header.Get("Authorization") != ""):
						answer(w, r, text)
					case r.URL.Path == "/token":
						issued := map[string]string{"token": echoToken}
						if identity {
							issued["refresh_token"] = echoRefresh
						}
						_ = json.NewEncoder(w).Encode(issued)
					case r.Header.Get("Authorization") == "Bearer "+echoToken:
						answer(w, r, text)
					default:
						challenge(w, r)
					}
				}))
				var log bytes.Buffer
				client := newClient(func(o *registry.Options) {
					o.Logger, o.Keychain = logTo(&log), keychain
				})
				_, err := client.Image(t.Context(), registry.DefaultPlatform(), strings.TrimPrefix(f.URL, "http://")+"/team/image:tag")
				f.Close()
				require.Error(t, err)
				for _, out := range append(allTexts(err), log.String()) {
					if found := leaked(out); found != "" {
						t.Errorf("%s at %s, %s: %s is in %q", name, where, form, found, out)
					}
				}
			}
		}
	}
}

type keychainOf struct{ authn.Authenticator }

func (k keychainOf) Resolve(authn.Resource) (authn.Authenticator, error) { return k.Authenticator, nil }

// The same for a range of a blob, and whatever a signature comes after.
func TestNothingOfABlobIsEchoed(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "image:tag", image)
	layer := layersOf(t, image)[0]
	for name, answer := range map[string]func(w http.ResponseWriter, text string){
		"range": func(w http.ResponseWriter, text string) {
			w.Header().Set("Content-Range", strings.Repeat("x", 85)+text)
			w.WriteHeader(206)
		},
		"location": func(w http.ResponseWriter, text string) {
			w.Header().Set("Location", "http://127.0.0.1:1/"+text)
			w.WriteHeader(307)
		},
	} {
		for _, text := range []string{echoPassword, base64.StdEncoding.EncodeToString([]byte("user:" + echoPassword)),
			`?a='SIGNATURE`, `?a="SIGNATURE`, `?a= SIGNATURE`, `;SIGNATURE`, `#SIGNATURE`, `'SIGNATURE`, `path/SIGNATURE`, `?a='SIGNATURE x" SIGNATURE`} {
			if name == "range" && strings.Contains(text, "SIGNATURE") {
				continue // no secret of a URL
			}
			f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, layer.Digest.String()) {
					answer(w, text)
					return
				}
				proxyTo(server, w, r)
			}))
			var log bytes.Buffer
			client := newClient(func(o *registry.Options) { o.Keychain, o.Logger = fixed{"user", echoPassword}, logTo(&log) })
			got, err := client.Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, server.Host(), strings.TrimPrefix(f.URL, "http://"), 1))
			require.NoError(t, err)
			for range 4 { // so that it is set aside too
				_, err = got.ReadRange(t.Context(), layer.Digest, 0, 10)
				require.Error(t, err)
			}
			f.Close()
			for _, out := range append(allTexts(err), log.String()) {
				assert.NotContains(t, out, "SIGNATURE", name)
				assert.Empty(t, leaked(out), "%s: %q", name, out)
			}
		}
	}
}

// A user and password before a host are no part of a reference, nor is a query.
func TestReferencesWithSecrets(t *testing.T) {
	for _, ref := range []string{"user:SECRET@registry.example.com/image:tag", "https://user:SECRET@registry.example.com/image", "user:SEC/RET@registry.example.com/image@sha256:0123",
		"registry.example.com/image:tag?token=SECRET", "registry.example.com/image:tag?a='SECRET", "https://registry.example.com/image?SECRET", "https://registry.example.com/image#SECRET"} {
		var log bytes.Buffer
		_, err := newClient(func(o *registry.Options) { o.Logger = logTo(&log) }).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.ErrorIs(t, err, registry.ErrInvalidReference)
		require.ErrorContains(t, err, "registry.example.com/image")
		var of *registry.Error
		require.ErrorAs(t, err, &of)
		for _, out := range append(allTexts(err), log.String(), of.Source) {
			assert.NotContains(t, out, "SECRET", ref)
			assert.NotContains(t, out, "SEC/RET", ref)
		}
	}
}
