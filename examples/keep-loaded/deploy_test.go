package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/internal/enginetest"
)

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(raw)
}

// requireRuns runs a command of a file, with directories and an engine of the test in place of
// the machine's, and -once: it loads the image.
func requireRuns(t *testing.T, args []string, engine string) {
	t.Helper()
	e := enginetest.New(t, enginetest.Options{})
	dir, dirs := t.TempDir(), 0
	require.NoError(t, scripttest.Stock(filepath.Join(dir, "jammy_main.tar"), "registry.test/ci/image:jammy-1", 5000, "a"))
	for i, a := range args {
		switch a {
		case "-dir":
			args[i+1] = dir
			dirs++
		case "-host":
			assert.Equal(t, engine, args[i+1])
			args[i+1] = e.Address()
			dirs++
		case "-state", "-lock-dir":
			assert.True(t, strings.HasPrefix(args[i+1], "/var/lib/keep-loaded/"), args[i+1])
			args[i+1] = filepath.Join(t.TempDir(), "new")
		}
	}
	require.Equal(t, 2, dirs, "it names the directory and the engine")
	cmd := scripttest.Command(t, "keep-loaded", append([]string{"-once"}, args...)...)
	cmd.Env = append(cmd.Env, "STATE_DIRECTORY="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Len(t, e.Names(), 1, "%s", out)
}

func TestUnit(t *testing.T) {
	const path = "deploy/keep-loaded.service"
	unit := read(t, path)
	starts := regexp.MustCompile(`(?m)^Exec\w*=(\S+) (.*)$`).FindAllStringSubmatch(unit, -1)
	require.Len(t, starts, 1)
	assert.Equal(t, "/usr/local/bin/keep-loaded", starts[0][1])
	requireRuns(t, strings.Fields(starts[0][2]), "unix:///var/run/docker.sock")
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed: what the unit says was not verified")
	}
	self, err := exec.LookPath("keep-loaded")
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "keep-loaded.service")
	require.NoError(t, os.WriteFile(copied, []byte(strings.Replace(unit, starts[0][1], self, 1)), 0o644))
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", copied).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.NotContains(t, string(out), "keep-loaded.service", "a warning")
}

// sockets are the directories of containerd's socket.
var sockets = map[string]string{
	"daemonset.yaml":     "/run/containerd",
	"daemonset-k3s.yaml": "/run/k3s/containerd",
	"daemonset-k0s.yaml": "/run/k0s",
}

func TestDaemonSets(t *testing.T) {
	files, err := filepath.Glob("deploy/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(sockets))
	// after returns what comes after the comment at the beginning.
	after := func(text string) string { return text[strings.Index(text, "apiVersion:"):] }
	for name, socket := range sockets {
		t.Run(name, func(t *testing.T) {
			text := read(t, "deploy/"+name)
			assert.Equal(t, strings.ReplaceAll(after(read(t, "deploy/daemonset.yaml")), sockets["daemonset.yaml"], socket), after(text))
			var set struct {
				Spec struct {
					Template struct {
						Spec struct {
							Containers []struct {
								Args         []string
								Env          []struct{ Name, Value string }
								VolumeMounts []struct {
									Name      string
									MountPath string `yaml:"mountPath"`
								} `yaml:"volumeMounts"`
							}
							Volumes []struct{ Name string }
						}
					}
				}
			}
			require.NoError(t, yaml.Unmarshal([]byte(text), &set))
			pod := set.Spec.Template.Spec
			require.Len(t, pod.Containers, 1)
			c := pod.Containers[0]
			assert.Equal(t, "CONTAINERD_NAMESPACE=k8s.io", c.Env[0].Name+"="+c.Env[0].Value)
			mounted := map[string]string{}
			for _, m := range c.VolumeMounts {
				mounted[m.Name] = m.MountPath
			}
			assert.Len(t, pod.Volumes, len(mounted))
			assert.Equal(t, map[string]string{"images": "/images", "socket": socket, "state": "/var/lib/keep-loaded"}, mounted)
			requireRuns(t, c.Args, "containerd://"+socket+"/containerd.sock")
			requireSchema(t, "deploy/"+name)
		})
	}
}

// requireSchema verifies that Kubernetes knows each field: kubectl decodes the file into its own
// types, without a server, and what it does not know is lost by that.
func requireSchema(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("kubectl is not installed: the fields were not verified")
	}
	const other = "registry.example/keep-loaded:other" // without a change it prints nothing
	cmd := exec.Command("kubectl", "set", "image", "--local", "-f", path, "keep-loaded="+other, "-o", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	var want, have any
	require.NoError(t, yaml.Unmarshal([]byte(strings.Replace(read(t, path), "registry.example/keep-loaded:1", other, 1)), &want))
	require.NoError(t, json.Unmarshal(out, &have))
	requireContains(t, "", want, have)
}

// requireContains verifies that have has all that want has.
func requireContains(t *testing.T, at string, want, have any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		fields, _ := have.(map[string]any)
		for name, value := range want {
			require.Contains(t, fields, name, at)
			requireContains(t, at+"."+name, value, fields[name])
		}
	case []any:
		list, _ := have.([]any)
		require.Len(t, list, len(want), at)
		for i := range want {
			requireContains(t, at+"[]", want[i], list[i])
		}
	default:
		assert.EqualValues(t, want, have, at)
	}
}
