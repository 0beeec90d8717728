package awsauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/awstest"
)

const (
	testRole = "arn:aws:iam::308535385114:role/gha/ecr_read_only"
	private  = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image"
	public   = "public.ecr.aws/docker/library/debian"
)

// A rig is a keychain with servers to talk to, a clock to set, and no waits. At
// the end of each test it checks that no secret was logged.
type rig struct {
	*Keychain
	t       *testing.T
	options *Options
	server  *awstest.Server
	log     lockedBuffer

	mu       sync.Mutex
	ahead    time.Duration // how far the rig's clock was set forward
	waits    []time.Duration
	reported []string
	errors   []string
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// newRig makes one with a role, in a job with an ID token.
func newRig(t *testing.T, q awstest.Quirks, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, server: awstest.New(t)}
	r.server.Setenv(t)
	r.server.SetQuirks(q)
	o := &Options{
		RoleARN: testRole,
		Logger:  slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Secret:  r.report,
	}
	if change != nil {
		change(o)
	}
	r.options = o
	t.Cleanup(r.checkSecrets)
	return r.again()
}

// again puts a new keychain into the rig, which knows nothing of the one before.
func (r *rig) again() *rig {
	k, err := NewKeychain(r.options)
	require.NoError(r.t, err)
	k.settings.now, k.settings.wait, k.settings.retryer = r.clock, r.wait, func(inner aws.Retryer) aws.Retryer { return &impatient{inner.(aws.RetryerV2)} }
	r.Keychain = k
	return r
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.ahead)
}

func (r *rig) forward(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

func (r *rig) wait(ctx context.Context, d time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waits = append(r.waits, d)
	return context.Cause(ctx)
}

func (r *rig) report(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported = append(r.reported, secret)
}

// impatient retries at once.
type impatient struct{ aws.RetryerV2 }

func (*impatient) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

// resolve resolves a repository and returns its user and password.
func (r *rig) resolve(repository string) (authn.AuthConfig, error) {
	r.t.Helper()
	repo, err := name.NewRepository(repository)
	require.NoError(r.t, err)
	a, err := authn.Resolve(r.t.Context(), r.Keychain, repo)
	if err != nil {
		return authn.AuthConfig{}, r.failed(err)
	}
	c, err := authn.Authorization(r.t.Context(), a)
	require.NoError(r.t, err)
	return *c, nil
}

// good resolves a repository and expects a password that a registry takes.
func (r *rig) good(repository string) authn.AuthConfig {
	r.t.Helper()
	c, err := r.resolve(repository)
	require.NoError(r.t, err)
	assert.True(r.t, r.server.GoodPassword(c.Username, c.Password))
	return c
}

// failed notes an error, to be searched for secrets.
func (r *rig) failed(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range unwrapped(err) {
		r.errors = append(r.errors, e.Error())
	}
	return err
}

// unwrapped returns an error and all that it wraps.
func unwrapped(err error) []error {
	all := []error{err}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			all = append(all, unwrapped(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			all = append(all, unwrapped(inner)...)
		}
	}
	return all
}

// asked returns how often a service was asked.
func (r *rig) asked(service string) int { return len(r.server.Requests(service)) }

// checkSecrets checks that nothing the servers issued is in the log or in an
// error, as it is or in base64, and that the errors have one line.
func (r *rig) checkSecrets() {
	for _, text := range append(r.errors, r.log.String()) {
		for _, secret := range r.server.Secrets() {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte("AWS:" + secret))} {
				if strings.Contains(text, form) {
					r.t.Errorf("the secret %s is in: %s", secret, text)
				}
			}
		}
	}
	for _, text := range r.errors {
		assert.NotContains(r.t, text, "\n")
	}
}

// noOIDC takes the job's permission away.
func noOIDC(t *testing.T) {
	t.Helper()
	t.Setenv(idTokenURL, "")
	t.Setenv(idTokenRequest, "")
}

// useKeys puts credentials of a user into the environment.
func useKeys(t *testing.T, c awstest.Credentials) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", c.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", c.SecretAccessKey)
}
