package dataroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// A Kind is a way in which an engine keeps images, and so the form of its data root.
type Kind string

// The kinds, by the program that has them.
const (
	// Docker is dockerd with the classic store and overlay2, its own --data-root.
	Docker Kind = "docker"
	// DockerContainerd is dockerd of version 25 or later with containerd's store, and
	// overlayfs. The same flag.
	DockerContainerd Kind = "docker-containerd"
	// Podman is podman's storage with overlay: --root.
	Podman Kind = "podman"
	// Containerd is containerd with overlayfs: root in its configuration.
	Containerd Kind = "containerd"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Docker, DockerContainerd, Podman, Containerd} }

// kinds have what differs between kinds.
var kinds = map[Kind]struct {
	program string // by default
	driver  string
	// holds is a path in the data root that shows that the engine keeps images in this way.
	holds string
	// forget are paths in the data root that are of one machine alone, as the engine's
	// identity, or that hold where the data root was.
	forget []string
	// ready is in what the program logs when it listens.
	ready string
}{
	Docker:           {"dockerd", "overlay2", "image/overlay2/repositories.json", []string{"engine-id", "tmp"}, "API listen on"},
	DockerContainerd: {"dockerd", "overlayfs", "containerd/daemon/io.containerd.snapshotter.v1.overlayfs", []string{"engine-id", "tmp", "containerd/daemon/io.containerd.grpc.v1.introspection"}, "API listen on"},
	Podman:           {"podman", "overlay", "overlay-images/images.json", []string{"libpod", "db.sql"}, "API service listening"},
	Containerd:       {"containerd", "overlayfs", "io.containerd.snapshotter.v1.overlayfs", []string{"io.containerd.grpc.v1.introspection"}, "containerd successfully booted"},
}

// An Engine is a program that unpacks images, and a job's engine later reads.
type Engine struct {
	Kind Kind
	// Program is its name or path. Default: dockerd, podman or containerd. For dockerd the
	// containerd on PATH is started too, and it runs what it finds there: runc, and unpigz if
	// that is there, which makes it faster.
	Program string
}

func (e Engine) check() error {
	if _, ok := kinds[e.Kind]; !ok {
		return fmt.Errorf("dataroot: no kind of engine is called %q: it must be one of %v", e.Kind, Kinds())
	}
	return nil
}

func (e Engine) program() string {
	if e.Program != "" {
		return e.Program
	}
	return kinds[e.Kind].program
}

// versionPattern is what follows "version" in what engines print.
var versionPattern = regexp.MustCompile(`(?i)(?:version|v)\s*v?(\d[0-9A-Za-z.+~:-]*)`)

// Record runs the program to find out its version.
func (e Engine) Record(ctx context.Context) (EngineRecord, error) {
	if err := e.check(); err != nil {
		return EngineRecord{}, err
	}
	out, err := exec.CommandContext(ctx, e.program(), "--version").Output()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		return EngineRecord{}, fmt.Errorf("dataroot: %s --version: %w", e.program(), err)
	}
	version, err := parseVersion(string(out))
	if err != nil {
		return EngineRecord{}, fmt.Errorf("dataroot: %s --version: %w", e.program(), err)
	}
	return EngineRecord{e.Kind, version, kinds[e.Kind].driver}, nil
}

// parseVersion finds the version in what an engine prints:
//
//	Docker version 20.10.24+dfsg1, build 297e128
//	podman version 4.3.1
//	containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1
func parseVersion(text string) (string, error) {
	first, _, _ := strings.Cut(text, "\n")
	if fields := strings.Fields(first); len(fields) > 2 && strings.HasPrefix(first, "containerd ") {
		return strings.TrimPrefix(fields[2], "v"), nil
	}
	if found := versionPattern.FindStringSubmatch(first); found != nil {
		return strings.TrimRight(found[1], ".-"), nil
	}
	return "", fmt.Errorf("no version is in %q", first)
}

// suffix is what the names of templates end with.
const suffix = ".dataroot"

// TemplateName returns the name of the template of some engine: BASE.KIND-VERSION.DRIVER.OS-ARCH.dataroot.
// The base is mostly a tarball's name without .tar.
func TemplateName(base string, e EngineRecord) string {
	return templateName(base, e, runtime.GOOS, runtime.GOARCH)
}

func templateName(base string, e EngineRecord, system, architecture string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r <= ' ' || r == 0x7f {
			return '-'
		}
		return r
	}, e.Version)
	return fmt.Sprintf("%s.%s-%s.%s.%s-%s%s", base, e.Kind, clean, e.Driver, system, architecture, suffix)
}

// sortImages sorts images by reference.
func sortImages(images []Image) {
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Reference, b.Reference) })
}
