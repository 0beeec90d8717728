package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// helperLimit is how long a credential helper may take. Some ask a person.
	helperLimit = time.Minute
	// maxHelperOutput bounds what is read of one, in bytes.
	maxHelperOutput = 1 << 20
)

// errNotRun is a helper that is not installed, or not for this system: what Docker
// Desktop puts into a config file is often read where there is none.
var errNotRun = errors.New("does not run")

// helpers run credential helpers, programs called docker-credential-NAME:
// https://github.com/docker/docker-credential-helpers. What they print is in no error:
// it may be half an answer.
type helpers struct {
	after func(time.Duration) <-chan time.Time // time.After, if nil
}

// get asks a helper for the login of a server. It is empty if the helper has none. A
// helper that takes too long, or that is asked for until ctx ends, is killed with all
// that it has started.
func (h *helpers) get(ctx context.Context, name, server string) (authn.AuthConfig, error) {
	program := "docker-credential-" + name
	fail := func(err error) (authn.AuthConfig, error) {
		return authn.AuthConfig{}, fmt.Errorf("the credential helper %s %w", program, err)
	}
	if strings.ContainsAny(name, `/\`) {
		return fail(errors.New("is a path, not a name"))
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return fail(fmt.Errorf("%w: it is not installed (not found in PATH)", errNotRun))
	}
	out := &limitedBuffer{}
	cmd := exec.Command(path, "get")
	cmd.Stdin, cmd.Stdout = strings.NewReader(server), out
	cmd.WaitDelay = time.Second // for what it started and does not end with it
	isolate(cmd)
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// The kernel kills the helper when this thread ends, see isolate.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fail(fmt.Errorf("%w: %w", errNotRun, err))
	}
	after := time.After
	if h.after != nil {
		after = h.after
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		kill(cmd)
		<-ended
		return authn.AuthConfig{}, wait.Err(ctx)
	case <-after(helperLimit):
		kill(cmd)
		<-ended
		return fail(fmt.Errorf("did not answer within %v and was ended", helperLimit))
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and left something behind that has its output
	}
	switch text := out.String(); {
	case err != nil && (strings.Contains(text, "credentials not found") || strings.Contains(text, "no credentials ")):
		return authn.AuthConfig{}, nil
	case err != nil:
		return fail(fmt.Errorf("failed: %w (what it printed is not shown)", err))
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.Bytes(), &answer) != nil {
		return fail(errors.New("did not print the expected JSON (what it printed is not shown)"))
	}
	if answer.Secret == "" {
		return authn.AuthConfig{}, nil
	}
	if answer.Username == "<token>" { // https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol
		return trimmed(authn.AuthConfig{IdentityToken: answer.Secret}), nil
	}
	return trimmed(authn.AuthConfig{Username: answer.Username, Password: answer.Secret}), nil
}

// A limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxHelperOutput-b.Len()))])
	return len(p), nil
}
