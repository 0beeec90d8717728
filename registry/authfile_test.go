package registry_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// authFiles are the files of a user: the names are those of variables, and "docker",
// "config" and "home" for the defaults.
func authFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	for name, content := range files {
		file := map[string]string{
			"docker":             ".docker/config.json",
			"DOCKER_CONFIG":      "elsewhere/config.json",
			"REGISTRY_AUTH_FILE": "explicit.json",
			"XDG_RUNTIME_DIR":    "run/containers/auth.json",
			"config":             ".config/containers/auth.json",
			"XDG_CONFIG_HOME":    "xdg/containers/auth.json",
		}[name]
		file = filepath.Join(dir, file)
		switch name {
		case "DOCKER_CONFIG":
			t.Setenv(name, filepath.Dir(file))
		case "XDG_CONFIG_HOME":
			t.Setenv(name, filepath.Join(dir, "xdg"))
		case "REGISTRY_AUTH_FILE":
			t.Setenv(name, file)
		case "DOCKER_AUTH_CONFIG":
			t.Setenv(name, content)
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	}
	return dir
}

// auths is a file with an entry for each key; the user is the value.
func auths(keysAndUsers ...string) string {
	var entries []string
	for i := 0; i < len(keysAndUsers); i += 2 {
		entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, keysAndUsers[i], base64.StdEncoding.EncodeToString([]byte(keysAndUsers[i+1]+":password"))))
	}
	return `{"auths":{` + strings.Join(entries, ",") + `}}`
}

func userFor(t *testing.T, repository string) string {
	t.Helper()
	repo, err := name.NewRepository(repository)
	require.NoError(t, err)
	auth, err := registry.DefaultChain().Resolve(repo)
	require.NoError(t, err)
	config, err := auth.Authorization()
	require.NoError(t, err)
	return config.Username
}

// Of several keys the most specific one counts, in every order in which a map is
// walked, and never the one of another namespace.
func TestMostSpecificKey(t *testing.T) {
	content := auths("host.example.com/team", "team", "host.example.com/team/app", "app", "host.example.com/team/app2", "app2",
		"host.example.com/other", "other", "host.example.com", "host", "https://host2.example.com/v1/", "legacy", "host2.example.com/team", "team2", "host:5000/x", "port", "upper.example.com/v2/", "api")
	for _, file := range []string{"docker", "XDG_RUNTIME_DIR"} {
		authFiles(t, map[string]string{file: content})
		for range 20 {
			for repository, user := range map[string]string{
				"host.example.com/team/app":      "app",
				"host.example.com/team/app/sub":  "app",
				"host.example.com/team/app2":     "app2",
				"host.example.com/team/app22":    "team",
				"host.example.com/teams/app":     "host",
				"host.example.com/image":         "host",
				"host.example.com/other/x":       "other",
				"host2.example.com/team/x":       "team2",
				"host2.example.com/x":            "legacy",
				"host:5000/x":                    "port",
				"host:5000/y":                    "",
				"host:5001/x":                    "",
				"upper.example.com/x":            "api",
				"host.example.com.evil.com/team": "",
			} {
				require.Equal(t, user, userFor(t, repository), repository)
			}
		}
	}
}

// All names of Docker Hub are one.
func TestKeysOfDockerHub(t *testing.T) {
	for _, key := range []string{"https://index.docker.io/v1/", "index.docker.io/v1/", "index.docker.io", "docker.io", "https://docker.io", "registry-1.docker.io", "https://registry-1.docker.io/v2/", "docker.io/library", "docker.io/library/debian"} {
		for _, file := range []string{"docker", "XDG_RUNTIME_DIR", "config"} {
			authFiles(t, map[string]string{file: auths(key, "me", "example.com", "other")})
			assert.Equal(t, "me", userFor(t, "debian"), key)
		}
	}
	authFiles(t, map[string]string{"docker": auths("docker.io/team", "me", "docker.io.example.com", "other")})
	assert.Empty(t, userFor(t, "debian"))
	authFiles(t, map[string]string{"docker": auths("docker.io", "second", "https://index.docker.io/v1/", "first", "docker.io/library", "library")})
	assert.Equal(t, "library", userFor(t, "debian"))
	assert.Equal(t, "first", userFor(t, "team/image"), "what docker login writes")
}

// Which files are read, and in which order.
func TestOrderOfAuthFiles(t *testing.T) {
	of := func(user string) string { return auths("example.com", user) }
	for _, c := range []struct {
		files map[string]string
		user  string
	}{
		{map[string]string{}, ""},
		{map[string]string{"docker": "{}", "XDG_RUNTIME_DIR": of("podman")}, "podman"},
		{map[string]string{"docker": "", "XDG_RUNTIME_DIR": of("podman")}, "podman"},
		{map[string]string{"docker": auths("other.example.com", "docker"), "config": of("podman")}, "podman"},
		{map[string]string{"docker": `{"auths":{"example.com":{}}}`, "config": of("podman")}, "podman"},
		{map[string]string{"docker": of("docker"), "XDG_RUNTIME_DIR": of("podman")}, "docker"},
		{map[string]string{"XDG_RUNTIME_DIR": of("run"), "config": of("config")}, "run"},
		{map[string]string{"XDG_RUNTIME_DIR": "{}", "config": of("config")}, "config"},
		{map[string]string{"XDG_CONFIG_HOME": of("xdg"), "config": of("config")}, "xdg"},
		{map[string]string{"REGISTRY_AUTH_FILE": of("explicit"), "XDG_RUNTIME_DIR": of("run")}, "explicit"},
		{map[string]string{"REGISTRY_AUTH_FILE": "{}", "XDG_RUNTIME_DIR": of("run")}, ""},
		{map[string]string{"DOCKER_CONFIG": of("elsewhere"), "docker": of("home")}, "elsewhere"},
		{map[string]string{"DOCKER_CONFIG": "{}", "docker": of("home")}, "home"}, // podman reads it
		{map[string]string{"DOCKER_AUTH_CONFIG": of("variable"), "docker": of("home")}, "variable"},
		{map[string]string{"DOCKER_AUTH_CONFIG": "{", "docker": of("home")}, "home"},
	} {
		authFiles(t, c.files)
		assert.Equal(t, c.user, userFor(t, "example.com/image"), c.files)
	}
}

// A line end that an editor or echo has added is not part of a secret.
func TestSecretsWithLineEnds(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for content, want := range map[string]authn.AuthConfig{
		`{"auth":"` + b64("user:pass\n") + `"}`:                 {Username: "user", Password: "pass"},
		`{"auth":"` + b64("user:pass") + `\n"}`:                 {Username: "user", Password: "pass"},
		`{"auth":"` + strings.TrimRight(b64("a:b"), "=") + `"}`: {Username: "a", Password: "b"},
		`{"username":"user","password":"pass\r\n"}`:             {Username: "user", Password: "pass"},
		`{"identitytoken":"token\n"}`:                           {IdentityToken: "token"},
		`{"registrytoken":"token\n"}`:                           {RegistryToken: "token"},
		`{"username":"user"}`:                                   {},
	} {
		authFiles(t, map[string]string{"docker": `{"auths":{"example.com":` + content + `}}`})
		repo, err := name.NewRepository("example.com/image")
		require.NoError(t, err)
		auth, err := registry.DefaultChain().Resolve(repo)
		require.NoError(t, err)
		config, err := auth.Authorization()
		require.NoError(t, err)
		config.Auth = ""
		assert.Equal(t, want, *config, content)
	}
	t.Setenv("GITHUB_TOKEN", "\n")
	t.Setenv("GH_TOKEN", "token\n")
	repo, err := name.NewRepository("ghcr.io/a/b")
	require.NoError(t, err)
	auth, err := registry.GitHub().Resolve(repo)
	require.NoError(t, err)
	config, err := auth.Authorization()
	require.NoError(t, err)
	assert.Equal(t, "token", config.Password)
}

// A keychain of another's need not trim: the header would not be one.
func TestKeychainWithLineEnds(t *testing.T) {
	for _, token := range []bool{false, true} {
		server := registrytest.New(t)
		ref := push(t, server, "image:tag", randomImage(t, 1))
		server.SetQuirks(registrytest.Quirks{User: "user", Password: "right-password", Token: token})
		_, err := newClient(func(o *registry.Options) { o.Keychain = fixed{"user\n", "right-password\r\n"} }).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err)
	}
}

// What is wrong with the login of another registry is a warning; of this one it is
// an error.
func TestBrokenLoginsOfOthers(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	const broken = `"other.example.com":{"auth":"TOP-SECRET!"},"third.example.com":["TOP-SECRET"]`
	for name, c := range map[string]struct {
		config, warning, failure string
	}{
		"other entry":          {`{"auths":{` + broken + `}}`, `the entry of \"other.example.com\" in auths`, ""},
		"own entry":            {`{"auths":{"HOST":{"auth":"TOP-SECRET!"}}}`, "", `the entry of "HOST" in auths: auth is not the base64 of USER:PASSWORD`},
		"helper of others":     {`{"credHelpers":{"other.example.com":"missing"}}`, "", ""},
		"own helper":           {`{"credHelpers":{"HOST":"missing"}}`, "", "the credential helper docker-credential-missing does not run: it is not installed"},
		"store":                {`{"credsStore":"missing"}`, "the credential helper docker-credential-missing does not run: it is not installed", ""},
		"store with the login": {`{"credsStore":"missing","auths":{"HOST":{}}}`, "", "the credential helper docker-credential-missing does not run: it is not installed"},
		"no helper for it":     {`{"credsStore":"missing","credHelpers":{"HOST":""}}`, "", ""},
		"not a name":           {`{"credHelpers":{"HOST":"../x"}}`, "", "is a path, not a name"},
	} {
		authFiles(t, map[string]string{"docker": strings.ReplaceAll(c.config, "HOST", server.Host())})
		var log bytes.Buffer
		client := newClient(func(o *registry.Options) { o.Keychain, o.Logger = nil, logTo(&log) })
		_, err := client.Image(t.Context(), registry.DefaultPlatform(), ref)
		if c.failure == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, registry.ErrNoCredentials, name)
			require.ErrorContains(t, err, strings.ReplaceAll(c.failure, "HOST", server.Host()), name)
			assert.NotContains(t, strings.Join(allTexts(err), " "), "TOP-SECRET", name)
		}
		assert.NotContains(t, log.String(), "TOP-SECRET", name)
		assert.Equal(t, c.warning != "", strings.Contains(log.String(), "level=WARN"), name)
		assert.Contains(t, log.String(), c.warning, name)
		lines := strings.Count(log.String(), "level=WARN")
		assert.LessOrEqual(t, lines, strings.Count(c.config, "TOP-SECRET")+strings.Count(c.config, "credsStore"), "%s: podman reads the file too", name)
		_, err = client.Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, "image", "image2", 1))
		require.Error(t, err)
		assert.Equal(t, lines, strings.Count(log.String(), "level=WARN"), "%s: once", name)
	}
}

// Docker's file is podman's too, under each of its names: what it has is sent once.
func TestOneFileIsOneLogin(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	for _, token := range []bool{false, true} {
		for _, file := range []string{"", ".docker/config.json", ".docker/../.docker/config.json"} {
			server.SetQuirks(registrytest.Quirks{User: "user", Password: "right-password", Token: token})
			dir := authFiles(t, map[string]string{"docker": auths(server.Host(), "user")})
			if file != "" {
				t.Setenv("REGISTRY_AUTH_FILE", dir+"/"+file)
			}
			before := len(server.Requests())
			_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Image(t.Context(), registry.DefaultPlatform(), ref)
			require.ErrorIs(t, err, registry.ErrDenied)
			require.ErrorContains(t, err, "(asked with: Docker's config file, then anonymous)")
			sent := 0
			for _, r := range server.Requests()[before:] {
				if strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") {
					sent++
				}
			}
			assert.Equal(t, 1, sent, "%v %q", token, file)
		}
	}
}

// A user without a home has no logins, and no certificates: that is no error.
func TestHomeThatIsNoDirectory(t *testing.T) {
	authFiles(t, nil)
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, os.DevNull+"/none")
	}
	require.Empty(t, userFor(t, "host.example.com/team/app"))
}
