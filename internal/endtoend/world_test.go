package endtoend

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	_ "github.com/dockercache/dockercache/artifacts" // see newWorldWith
	"github.com/dockercache/dockercache/artifacts/artifactstest"
	_ "github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/awstest"
	"github.com/dockercache/dockercache/internal/fakenet"
	"github.com/dockercache/dockercache/internal/imagetest"
	_ "github.com/dockercache/dockercache/registry"
	_ "github.com/dockercache/dockercache/registry/awsauth"
	"github.com/dockercache/dockercache/registry/registrytest"
	_ "github.com/dockercache/dockercache/tagging"
)

const (
	ecrHost       = "308535385114.dkr.ecr.us-east-1.amazonaws.com"
	ecrImage      = ecrHost + "/pytorch/ci-image"
	mirrorImage   = "ghcr.io/pytorch/ci-image"
	fleetHost     = "registry.example.com"
	packagesHost  = "pkg-containers.githubusercontent.com"
	storageHost   = "prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com"
	role          = "arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only"
	jobToken      = "ghs_job-token-0123456789"
	fleetPassword = "docker-config-password"
	hash          = "-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"
	mib           = 1 << 20
)

// names of the workflow's images; the second was built by a scheduled run, which
// pushes to ECR alone.
var names = []string{"pytorch-linux-jammy-rocm-n-py3", "pytorch-linux-noble-rocm-n-py3", "pytorch-linux-jammy-rocm-n-py3-benchmarks"}

// A world is what a job of the workflow meets.
type world struct {
	t         *testing.T
	aws       *awstest.Server
	ecr, ghcr *registrytest.Server
	fleet     *registrytest.Server  // a mirror whose password is in Docker's config file
	storage   *registrytest.Storage // of ECR
	packages  *registrytest.Storage // of ghcr.io
	api       *artifactstest.Server
	net       *fakenet.Net
	images    map[string]v1.Image // by name
	home, dir string
	temp      string // for whatever else is written
	env       []string
	secrets   []string // those that the job begins with
}

// newWorld makes one in which everything is as it should be: ECR wants a
// password that AWS gives and redirects blobs to S3, ghcr.io is public but has
// no use for a credential that is wrong.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newWorldWith(t, 0)
}

// newWorldWith has signed URLs that are good for so many requests.
func newWorldWith(t *testing.T, signatureUses int) *world {
	t.Helper()
	// The go command repeats an old result unless something changed that it knows
	// of: imports, and files that a test looks at. The programs are neither.
	sources, err := filepath.Glob("../../examples/*/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	common, err := filepath.Glob("../../examples/internal/*/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, common)
	sources = append(sources, common...)
	for _, source := range sources {
		_, err := os.Stat(source)
		require.NoError(t, err)
	}
	w := &world{t: t, aws: awstest.New(t), ecr: registrytest.New(t), ghcr: registrytest.New(t), fleet: registrytest.New(t), images: map[string]v1.Image{}, home: t.TempDir(), dir: t.TempDir(), temp: t.TempDir()}
	w.storage = registrytest.NewStorage(t, w.ecr, signatureUses)
	w.storage.URL = "https://" + storageHost
	w.packages = registrytest.NewStorage(t, w.ghcr, signatureUses)
	w.packages.URL = "https://" + packagesHost
	w.aws.SetQuirks(awstest.Quirks{Role: role})
	w.ecr.SetQuirks(registrytest.Quirks{Admits: w.aws.GoodPassword, Storage: w.storage})
	const token, password = jobToken, fleetPassword
	w.api = artifactstest.New(t)
	w.api.SetQuirks(artifactstest.Quirks{Token: token})
	w.secrets = []string{token, password, basic("octocat", token), basic("fleet", password)}
	w.ghcr.SetQuirks(registrytest.Quirks{Token: true, Public: true, User: "octocat", Password: token, Storage: w.packages})
	w.fleet.SetQuirks(registrytest.Quirks{User: "fleet", Password: password})
	w.net, err = fakenet.Start(t.TempDir(), map[string]http.Handler{ecrHost: w.ecr, "ghcr.io": w.ghcr, fleetHost: w.fleet, storageHost: w.storage, packagesHost: w.packages})
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.net.Close() })

	shared, err := imagetest.Layer("base", mib)
	require.NoError(t, err)
	for i, name := range names {
		own, err := imagetest.Layer(name, (3+i)*mib)
		require.NoError(t, err)
		image, err := imagetest.Image(shared, own)
		require.NoError(t, err)
		w.images[name] = image
		_, err = w.ecr.Push("pytorch/ci-image:"+name+hash, image)
		require.NoError(t, err)
		if i != 1 {
			_, err = w.ghcr.Push("pytorch/ci-image:"+name+hash, image)
			require.NoError(t, err)
		}
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]authn.AuthConfig{fleetHost: {Username: "fleet", Password: password}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.home, "config.json"), config, 0o600))
	w.env = append(os.Environ(), w.net.Env()...)
	for key, value := range w.aws.Env() {
		w.env = append(w.env, key+"="+value)
	}
	w.env = append(w.env, "HOME="+w.home, "TMPDIR="+w.temp, "DOCKER_CONFIG="+w.home, "GITHUB_ACTIONS=true", "GITHUB_ACTOR=octocat", "GITHUB_TOKEN="+token, "GH_TOKEN=")
	w.env = append(append(w.env, goEnv...), w.api.Env()...)
	w.env = append(w.env, "GITHUB_REPOSITORY=pytorch/pytorch", "GITHUB_EVENT_NAME=", "GITHUB_EVENT_PATH=", "GITHUB_OUTPUT=", "GITHUB_STEP_SUMMARY=")
	return w
}

// A result is a line of -json.
type result struct {
	Image, Source, Tarball, Digest, Outcome, Error string
	BytesDownloaded                                int64 `json:"bytes_downloaded"`
	BytesReused                                    int64 `json:"bytes_reused"`
	Sources                                        []struct {
		BytesDuplicate int64 `json:"bytes_duplicate"`
	}
}

// once is how many bytes were downloaded of which each is needed: a range that is slow, as on a
// busy machine, is fetched by two connections at the same time.
func (r result) once() int64 {
	n := r.BytesDownloaded
	for _, s := range r.Sources {
		n -= s.BytesDuplicate
	}
	return n
}

// A finished run of a program.
type finished struct {
	code           int
	stdout, stderr string
	results        []result
}

// run runs an example program at its most verbose.
func (w *world) run(program string, args ...string) finished {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env = w.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(w.t, err)
	}
	f := finished{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	for d := json.NewDecoder(&stdout); d.More(); {
		var r result
		if d.Decode(&r) != nil {
			break // not -json
		}
		f.results = append(f.results, r)
	}
	return f
}

// stock runs docker-cache as the workflow has it.
func (w *world) stock(args ...string) finished {
	w.t.Helper()
	args = append([]string{"-v", "-json", "-quiet", "-dir", w.dir, "-branch", "main", "-mirror", mirrorImage, "-role-arn", role, "-region", "us-east-1", "-role-duration", "18000"}, args...)
	for _, name := range names {
		args = append(args, ecrImage+":"+name+hash)
	}
	return w.run(dockerCache, args...)
}

// of returns the result of an image.
func (f finished) of(t *testing.T, name string) result {
	t.Helper()
	for _, r := range f.results {
		if r.Image == ecrImage+":"+name+hash {
			return r
		}
	}
	require.Fail(t, "no result", "%s in %s%s", name, f.stdout, f.stderr)
	return result{}
}

// requireNoSecret looks for every secret in all that was written: outputs, but
// for the lines that ask the runner to hide them, files, and what was sent to
// whom it is not for.
func (w *world) requireNoSecret(f finished) {
	w.t.Helper()
	secrets := slices.Concat(w.secrets, w.aws.Secrets(), w.ghcr.Tokens(), []string{registrytest.Signature + "-"})
	var shown strings.Builder
	for line := range strings.Lines(f.stderr) {
		if !strings.HasPrefix(line, "::add-mask::") {
			shown.WriteString(line)
		}
	}
	for i, secret := range secrets {
		assert.NotContains(w.t, f.stdout, secret, i)
		assert.NotContains(w.t, shown.String(), secret, i)
	}
	for _, dir := range []string{w.dir, w.home, w.temp} {
		require.NoError(w.t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || path == filepath.Join(w.home, "config.json") {
				return err
			}
			content, err := os.ReadFile(path)
			for i, secret := range secrets {
				assert.False(w.t, bytes.Contains(content, []byte(secret)), "%s has secret %d", path, i)
			}
			return err
		}))
	}
	// A request may have what is meant for whom it asks, and nothing else.
	sent := func(to string, allowed func(secret string) bool, parts ...any) {
		text := fmt.Sprint(parts...)
		for i, secret := range secrets {
			if !allowed(secret) {
				assert.NotContains(w.t, text, secret, "%s got secret %d", to, i)
			}
		}
	}
	for _, r := range w.ecr.Requests() {
		sent(ecrHost+r.Path, isPassword, r.Header)
	}
	for _, r := range w.ghcr.Requests() {
		sent("ghcr.io"+r.Path, func(secret string) bool {
			if r.Path == "/token" {
				return secret == basic("octocat", jobToken)
			}
			return slices.Contains(w.ghcr.Tokens(), secret)
		}, r.Header)
	}
	for _, r := range w.fleet.Requests() {
		sent(fleetHost+r.Path, func(secret string) bool { return secret == basic("fleet", fleetPassword) }, r.Header)
	}
	for _, r := range append(w.storage.Requests(), w.packages.Requests()...) {
		sent("storage "+r.Path, func(string) bool { return false }, r.Header)
	}
	for _, r := range w.api.Requests() {
		sent(r.Path, func(secret string) bool { return secret == jobToken && !r.Storage }, r.Header)
	}
	for _, r := range w.aws.Requests(awstest.OIDC) {
		sent(r.Service, func(secret string) bool { return secret == w.aws.Secrets()[0] }, r.Header, r.Form)
	}
	for _, r := range w.aws.Requests(awstest.STS) {
		sent(r.Service, func(secret string) bool { return secret == r.Form.Get("WebIdentityToken") }, r.Header, r.Form)
	}
	for _, service := range []string{awstest.ECR, awstest.ECRPublic} {
		for _, r := range w.aws.Requests(service) {
			sent(r.Service, func(secret string) bool { return secret == r.Header.Get("X-Amz-Security-Token") }, r.Header, r.Body)
		}
	}
	assert.Empty(w.t, w.net.Refused(), "no other host was asked")
}

// isPassword reports whether a secret of AWS is what ECR's registry is for.
func isPassword(secret string) bool {
	text, err := base64.StdEncoding.DecodeString(secret)
	return err == nil && strings.HasPrefix(string(text), "AWS:")
}

// basic is a user and password as they are sent.
func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

var dockerCache string

// goEnv lets steps build programs when HOME is another: with what is here.
var goEnv = []string{"GOPROXY=off", "GOFLAGS=-buildvcs=false"}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "endtoend")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		dockerCache = filepath.Join(dir, "docker-cache")
		if out, err := exec.Command("go", "build", "-o", dockerCache, "../../examples/docker-cache").CombinedOutput(); err != nil {
			panic(fmt.Sprint(err, string(out)))
		}
		for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
			value, err := exec.Command("go", "env", name).Output()
			if err != nil {
				panic(err)
			}
			goEnv = append(goEnv, name+"="+strings.TrimSpace(string(value)))
		}
		return m.Run()
	}())
}
