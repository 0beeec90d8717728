package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/internal/refname"
)

// hub is how Docker calls Docker Hub in its config file and towards helpers.
const hub = "https://index.docker.io/v1/"

// hostNames returns the hosts under which files may have a registry.
func hostNames(host string) []string {
	if slices.Contains(refname.Hub, host) {
		return refname.Hub
	}
	return []string{host}
}

// servers returns what a registry is called towards helpers, the usual name first.
func servers(host string) []string {
	if slices.Contains(refname.Hub, host) {
		return append([]string{hub}, refname.Hub...)
	}
	return []string{host}
}

// An authFile is a keychain of the files in which Docker or podman keeps logins. They
// are read each time that a credential is asked for, and never written. It is safe
// for concurrent use.
type authFile struct {
	files   func() []string // that are there or not, in order
	env     string          // a variable with the content of a file, which comes before
	helpers helpers

	warned sync.Map // texts that were logged
}

// dockerFile returns the keychain of Docker's config file.
func dockerFile() *authFile {
	return &authFile{env: "DOCKER_AUTH_CONFIG", files: func() []string { return []string{dockerConfig()} }}
}

func dockerConfig() string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = inHome(".docker")
	}
	return filepath.Join(dir, "config.json")
}

// podmanFiles returns the keychain of the files that podman, buildah and skopeo read,
// containers-auth.json(5), but for that of [dockerFile]: a password that was denied
// must not be sent a second time, for which some servers lock an account.
func podmanFiles() *authFile {
	return &authFile{files: func() (files []string) {
		defer func() {
			own := dockerConfig()
			files = slices.DeleteFunc(files, func(file string) bool { return filepath.Clean(file) == own })
		}()
		if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
			return []string{file}
		}
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			files = append(files, filepath.Join(dir, "containers", "auth.json"))
		} else if runtime.GOOS == "linux" {
			files = append(files, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
		}
		return append(files, filepath.Join(configHome(), "containers", "auth.json"), filepath.Join(inHome(".docker"), "config.json"))
	}}
}

// configHome returns where programs have this user's configuration
// (https://specifications.freedesktop.org/basedir-spec/latest/).
func configHome() string { return cmp.Or(os.Getenv("XDG_CONFIG_HOME"), inHome(".config")) }

func inHome(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return name
	}
	return filepath.Join(home, name)
}

// logins are what a file has.
type logins struct {
	file string

	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]string          `json:"credHelpers"`
}

// warnKey is the key of a context's func(error), which logs what is wrong with a file
// but has nothing to do with the registry that is asked for.
type warnKey struct{}

func (f *authFile) warn(ctx context.Context, err error) {
	if log, ok := ctx.Value(warnKey{}).(func(error)); ok {
		if _, was := f.warned.LoadOrStore(err.Error(), true); !was {
			log(err)
		}
	}
}

// Resolve is ResolveContext without a context.
func (f *authFile) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return f.ResolveContext(context.Background(), target)
}

// ResolveContext returns the credential of the first file that has one for the
// target: by the helper for its host, or that of the key that is the longest prefix of
// the repository, then that of the host.
func (f *authFile) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	all, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		config, err := f.find(ctx, l, target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.file, err)
		}
		if config != (authn.AuthConfig{}) {
			return authn.FromConfig(config), nil
		}
	}
	return authn.Anonymous, nil
}

func (f *authFile) read(ctx context.Context) (all []*logins, err error) {
	if content := os.Getenv(f.env); f.env != "" && content != "" {
		l := &logins{file: f.env}
		if err := json.Unmarshal([]byte(content), l); err != nil {
			f.warn(ctx, fmt.Errorf("%s is not JSON", f.env)) // as Docker does
		} else {
			all = append(all, l)
		}
	}
	for _, file := range f.files() {
		raw, err := os.ReadFile(file)
		switch {
		case isAbsent(err):
			continue
		case err != nil:
			return nil, err
		}
		l := &logins{file: file}
		if len(strings.TrimSpace(string(raw))) > 0 {
			if err := json.Unmarshal(raw, l); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// isAbsent reports whether a file cannot be read since there is none, also where HOME is
// no directory, as of users without one (/dev/null).
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (f *authFile) find(ctx context.Context, l *logins, target authn.Resource) (authn.AuthConfig, error) {
	host := target.RegistryStr()
	entry, listed, broken := f.entry(ctx, l, target.String())
	helper, own := l.helper(host)
	if helper == "" || entry.RegistryToken != "" {
		return entry, broken
	}
	for _, server := range servers(host) {
		config, err := f.helpers.get(ctx, helper, server)
		switch {
		case errors.Is(err, errNotRun) && !own && !listed:
			// The store is that of all registries, and there was no login to this
			// one, so most likely it has no login for it.
			f.warn(ctx, fmt.Errorf("%s: %w", l.file, err))
			return entry, broken
		case err != nil:
			return authn.AuthConfig{}, err
		case config != (authn.AuthConfig{}):
			return config, nil
		}
	}
	return entry, broken
}

// helper returns the name of the helper for a host, and whether it is for this one
// alone; empty if the file itself has the logins.
func (l *logins) helper(host string) (name string, own bool) {
	for _, key := range servers(host) {
		if name, ok := l.CredHelpers[key]; ok {
			return name, true
		}
	}
	return l.CredsStore, false
}

// entry returns what the file itself has for HOST/REPOSITORY, and whether it has a key
// for it. The error is about that key; others are warned of.
func (f *authFile) entry(ctx context.Context, l *logins, repository string) (found authn.AuthConfig, listed bool, err error) {
	host, path, _ := strings.Cut(repository, "/")
	best := -1
	for _, key := range sortedKeys(l.Auths) {
		keyHost, namespace := splitKey(key)
		config, broken := parseEntry(l.Auths[key])
		if broken != nil {
			broken = fmt.Errorf("the entry of %q in auths: %w", key, broken)
		}
		if !slices.Contains(hostNames(host), keyHost) || namespace != "" && path != namespace && !strings.HasPrefix(path, namespace+"/") {
			if broken != nil {
				f.warn(ctx, fmt.Errorf("%s: %w", l.file, broken))
			}
			continue
		}
		listed = true
		if config == (authn.AuthConfig{}) && broken == nil || len(namespace) <= best {
			continue // Docker writes an empty one where a helper has the login
		}
		found, err, best = config, broken, len(namespace)
	}
	return found, listed, err
}

// sortedKeys returns the keys so that of two for the same the one comes first that is
// in the form that Docker writes.
func sortedKeys(auths map[string]json.RawMessage) []string {
	var keys []string
	for key := range auths {
		keys = append(keys, key)
	}
	rank := func(key string) int {
		switch {
		case key == hub:
			return 0
		case !strings.Contains(key, "://"):
			return 1
		}
		return 2
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// splitKey returns the host and the namespace of a key. The path of one with a scheme
// is that of an API, such as /v1/; so is this one without.
func splitKey(key string) (host, namespace string) {
	_, rest, isURL := strings.Cut(key, "://")
	if !isURL {
		rest = key
	}
	host, namespace, _ = strings.Cut(rest, "/")
	namespace = strings.Trim(namespace, "/")
	if isURL || namespace == "v1" || namespace == "v2" {
		namespace = ""
	}
	return strings.ToLower(host), namespace
}

// parseEntry reads an entry. Its errors have nothing of it.
func parseEntry(raw json.RawMessage) (authn.AuthConfig, error) {
	var e struct{ Username, Password, Auth, IdentityToken, RegistryToken string }
	if err := json.Unmarshal(raw, &e); err != nil {
		return authn.AuthConfig{}, errors.New("not of the form {\"auth\": \"BASE64\"}")
	}
	config := authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if text := strings.TrimSpace(e.Auth); text != "" {
		decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		user, password, ok := strings.Cut(string(decoded), ":")
		if err != nil || !ok || user == "" {
			return authn.AuthConfig{}, errors.New("auth is not the base64 of USER:PASSWORD")
		}
		config.Username, config.Password = user, strings.Trim(password, "\x00")
	}
	config = trimmed(config)
	if config.Password == "" && config.IdentityToken == "" && config.RegistryToken == "" {
		return authn.AuthConfig{}, nil
	}
	return config, nil
}

// trimmed returns a credential without the line ends that a secret gets when it comes
// out of a file or a program.
func trimmed(c authn.AuthConfig) authn.AuthConfig {
	for _, v := range []*string{&c.Username, &c.Password, &c.Auth, &c.IdentityToken, &c.RegistryToken} {
		*v = strings.TrimRight(*v, "\r\n")
	}
	return c
}
