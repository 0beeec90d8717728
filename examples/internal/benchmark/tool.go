//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ours is this project's program, by which the others are measured.
const ours = "docker-cache"

var toolNames = []string{ours, "crane", "regctl", "skopeo", "docker"}

// A tool pulls an image from HOST:PORT into a tarball in dir.
type tool interface {
	name() string
	version() string
	pull(ctx context.Context, w work, host, dir string) (*usage, error)
}

// commandTool is a tool that is one command.
type commandTool struct {
	label, says string
	env         []string
	args        func(ref, host, dir string) []string
}

func (t *commandTool) name() string    { return t.label }
func (t *commandTool) version() string { return t.says }

func (t *commandTool) pull(ctx context.Context, w work, host, dir string) (*usage, error) {
	return measured(ctx, t.env, t.args(w.reference(host), host, dir)...)
}

// findTools builds ours and looks for the others. end must be called, whatever
// is returned.
func (b *bench) findTools(ctx context.Context) (end func(), err error) {
	end = func() {}
	// No configuration of the machine, and no temporary file on its disk.
	env := []string{"DOCKER_CONFIG=" + b.scratch, "TMPDIR=" + b.scratch, "REGCTL_CONFIG=" + filepath.Join(b.scratch, "regctl.json")}
	program := filepath.Join(b.scratch, ours)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/dockercache/dockercache/examples/docker-cache").CombinedOutput(); err != nil {
		return end, fmt.Errorf("build %s: %w\n%s", ours, err, out)
	}
	b.tools = []tool{&commandTool{ours, "this project", env, func(ref, host, dir string) []string {
		return []string{program, "-dir", dir, "-branch", "main", "-json", ref}
	}}}
	for _, other := range []struct {
		version []string
		args    func(ref, host, dir string) []string
	}{
		{[]string{"crane", "version"}, func(ref, _, dir string) []string {
			return []string{"crane", "pull", "--platform", "linux/amd64", ref, dir + "/out.tar"}
		}},
		{[]string{"regctl", "version", "--format", "{{.VCSTag}}"}, func(ref, _, dir string) []string {
			return []string{"regctl", "image", "export", "--platform", "linux/amd64", ref, dir + "/out.tar"}
		}},
		{[]string{"skopeo", "--version"}, func(ref, _, dir string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://" + ref, "docker-archive:" + dir + "/out.tar:" + ref}
		}},
	} {
		name := other.version[0]
		if !b.wants(name) {
			continue
		}
		out, err := exec.CommandContext(ctx, name, other.version[1:]...).Output()
		if err != nil {
			return end, fmt.Errorf("%s: %w", strings.Join(other.version, " "), err)
		}
		b.tools = append(b.tools, &commandTool{name, strings.TrimPrefix(strings.TrimSpace(string(out)), "skopeo version "), env, other.args})
		if name == "regctl" {
			if err := b.allowPlainHTTP(ctx, env); err != nil {
				return end, err
			}
		}
	}
	if b.wants("docker") && b.wants("dockerd") {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "docker is left out: starting a daemon needs root")
			return end, nil
		}
		d, err := startDocker(ctx, b.scratch, env, dockerd)
		if err != nil {
			return end, err
		}
		b.tools = append(b.tools, d)
		return d.stop, nil
	}
	return end, nil
}

// wants reports whether a program takes part: it was asked for, and is there.
func (b *bench) wants(name string) bool {
	if !slices.Contains(b.options.tools, strings.TrimSuffix(name, "d")) {
		return false
	}
	if _, err := exec.LookPath(name); err != nil {
		fmt.Fprintf(os.Stderr, "%s is left out: it is not installed\n", name)
		return false
	}
	return true
}

// allowPlainHTTP writes regctl's configuration.
func (b *bench) allowPlainHTTP(ctx context.Context, env []string) error {
	for _, host := range b.server.hosts {
		cmd := exec.CommandContext(ctx, "regctl", "registry", "set", "--tls", "disabled", host)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("regctl registry set: %s", out), err)
		}
	}
	return nil
}
