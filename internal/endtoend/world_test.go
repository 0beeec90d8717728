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
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	_ "github.com/dockercache/dockercache/artifacts" // see newWorldWith
	"github.com/dockercache/dockercache/artifacts/artifactstest"
	_ "github.com/dockercache/dockercache/cache"
	_ "github.com/dockercache/dockercache/internal/buildflags"
	_ "github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/internal/fakenet"
	"github.com/dockercache/dockercache/internal/imagetest"
	_ "github.com/dockercache/dockercache/registry"
	_ "github.com/dockercache/dockercache/registry/awsauth"
	"github.com/dockercache/dockercache/registry/awsauth/awstest"
	"github.com/dockercache/dockercache/registry/registrytest"
	_ "github.com/dockercache/dockercache/tagging"
)

const (
	ecrHost     = "308535385114.dkr.ecr.us-east-1.amazonaws.com"
	ecrImage    = ecrHost + "/pytorch/ci-image"
	mirrorImage = "ghcr.io/pytorch/ci-image"
	storageHost = "prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com"
	role        = "arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only"
	jobToken    = "ghs_job-token-0123456789"
	hash        = "-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"
	mib         = 1 << 20
)

// names of the workflow's images; the second was built by a scheduled run, which
// pushes to ECR alone.
var names = []string{"pytorch-linux-jammy-rocm-n-py3", "pytorch-linux-noble-rocm-n-py3", "pytorch-linux-jammy-rocm-n-py3-benchmarks"}

// A world is what a job of the workflow meets.
type world struct {
	t         *testing.T
	aws       *awstest.Server
	ecr, ghcr *registrytest.Server
	storage   *registrytest.Storage // of ECR
	api       *artifactstest.Server
	net       *fakenet.Net
	images    map[string]v1.Image // by name
	home, dir string
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
	for _, source := range sources {
		_, err := os.Stat(source)
		require.NoError(t, err)
	}
	w := &world{t: t, aws: awstest.New(t), ecr: registrytest.New(t), ghcr: registrytest.New(t), images: map[string]v1.Image{}, home: t.TempDir(), dir: t.TempDir()}
	w.storage = registrytest.NewStorage(t, w.ecr, signatureUses)
	w.storage.URL = "https://" + storageHost
	w.aws.SetQuirks(awstest.Quirks{Role: role})
	w.ecr.SetQuirks(registrytest.Quirks{Admits: w.aws.GoodPassword, Storage: w.storage})
	const token, password = jobToken, "docker-config-password"
	w.api = artifactstest.New(t)
	w.api.SetQuirks(artifactstest.Quirks{Token: token})
	w.secrets = []string{token, password, base64.StdEncoding.EncodeToString([]byte("octocat:" + token)), base64.StdEncoding.EncodeToString([]byte("fleet:" + password))}
	w.ghcr.SetQuirks(registrytest.Quirks{Token: true, Public: true, User: "octocat", Password: token})
	w.net, err = fakenet.Start(t.TempDir(), map[string]http.Handler{ecrHost: w.ecr, "ghcr.io": w.ghcr, storageHost: w.storage})
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
	config, err := json.Marshal(map[string]any{"auths": map[string]authn.AuthConfig{"registry.example.com": {Username: "fleet", Password: password}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.home, "config.json"), config, 0o600))
	w.env = append(os.Environ(), w.net.Env()...)
	for key, value := range w.aws.Env() {
		w.env = append(w.env, key+"="+value)
	}
	w.env = append(w.env, "HOME="+w.home, "DOCKER_CONFIG="+w.home, "GITHUB_ACTIONS=true", "GITHUB_ACTOR=octocat", "GITHUB_TOKEN="+token, "GH_TOKEN=")
	w.env = append(append(w.env, goEnv...), w.api.Env()...)
	w.env = append(w.env, "GITHUB_REPOSITORY=pytorch/pytorch", "GITHUB_EVENT_NAME=", "GITHUB_EVENT_PATH=", "GITHUB_OUTPUT=", "GITHUB_STEP_SUMMARY=")
	return w
}

// A result is a line of -json.
type result struct {
	Image, Source, Tarball, Digest, Outcome, Error string
	BytesDownloaded                                int64 `json:"bytes_downloaded"`
	BytesReused                                    int64 `json:"bytes_reused"`
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
// for the lines that ask the runner to hide them, and files.
func (w *world) requireNoSecret(f finished) {
	w.t.Helper()
	secrets := append(w.aws.Secrets(), w.secrets...)
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
	for _, dir := range []string{w.dir, w.home} {
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
	password := map[string]bool{}
	for _, secret := range w.aws.Secrets() {
		password[secret] = true
	}
	for host, requests := range map[string][]registrytest.Request{ecrHost: w.ecr.Requests(), "ghcr.io": w.ghcr.Requests(), storageHost: w.storage.Requests()} {
		for _, r := range requests {
			headers := fmt.Sprint(r.Header)
			for i, secret := range secrets {
				allowed := host == ecrHost && password[secret] || host == "ghcr.io" && r.Path == "/token" && !password[secret]
				if !allowed {
					assert.NotContains(w.t, headers, secret, "%s%s got secret %d", host, r.Path, i)
				}
			}
		}
	}
	for _, r := range w.api.Requests() {
		headers := fmt.Sprint(r.Header)
		for i, secret := range secrets {
			if r.Storage || secret != jobToken {
				assert.NotContains(w.t, headers, secret, "%s got secret %d", r.Path, i)
			}
		}
	}
	assert.Empty(w.t, w.net.Refused(), "nobody else was asked")
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
