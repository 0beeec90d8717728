package loader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// containerdScheme begins the address of a containerd: containerd:///PATH.
const containerdScheme = "containerd"

// containerd is a containerd without Docker, spoken to through its own program ctr:
// its Go client would bring more modules than all the rest of this one. It is made
// by [openContainerd], and safe for concurrent use.
//
// The namespace, such as k8s.io, and the snapshotter are ctr's: the variables
// CONTAINERD_NAMESPACE and, from 2.0 on, CONTAINERD_SNAPSHOTTER say which.
type containerd struct {
	socket    string
	ctr       string
	verifiers string // see [verifierDir]
	version   string // of the server, such as 1.6.20~ds1; "" if ctr does not print it
	// local makes ctr itself import and pull, as versions before 2 do. Else containerd's transfer service
	// does: it leaves an image not unpacked whose config has a type that it does not know, or whose
	// snapshotter is not in its configuration.
	local []string
}

// openContainerd connects to the containerd at containerd:///PATH, with the errors of
// [Open].
func openContainerd(ctx context.Context, address string) (*containerd, error) {
	socket, err := containerdSocket(address)
	if err != nil {
		return nil, err
	}
	ctr, err := exec.LookPath("ctr")
	if err != nil {
		return nil, fmt.Errorf("%w %s: the program ctr, which comes with containerd, is needed: %w", ErrInvalidHost, address, err)
	}
	// ctr tries to connect for 10 s, also where there is no socket.
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", address, unreachable(ctx, err))
	}
	_ = conn.Close()
	c := &containerd{socket: socket, ctr: ctr, verifiers: verifierDir}
	out, err := c.run(ctx, nil, "version")
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w: %w", address, ErrUnreachable, err)
	}
	client, server, _ := strings.Cut(out, "Server:")
	c.version = versionIn(server)
	major, _, _ := strings.Cut(strings.TrimPrefix(versionIn(client), "v"), ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 2 {
		c.local = []string{"--local"}
	}
	return c, nil
}

// versionIn returns the version in a part of what ctr version prints; "" if there is none.
func versionIn(part string) string {
	_, after, _ := strings.Cut(part, "Version:")
	version, _, _ := strings.Cut(strings.TrimSpace(after), "\n")
	return version
}

// containerdSocket returns the path in containerd:///PATH.
func containerdSocket(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != containerdScheme || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
		return "", fmt.Errorf("%w %q: want containerd:///PATH", ErrInvalidHost, address)
	}
	return u.Path, nil
}

// run runs ctr, and returns what it prints.
func (c *containerd) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	var stdout bytes.Buffer
	err := c.exec(ctx, stdin, &stdout, args...)
	return stdout.String(), err
}

func (c *containerd) exec(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, c.ctr, append([]string{"--address", c.socket}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	err := runBound(cmd)
	switch {
	case ctx.Err() != nil:
		return wait.Err(ctx)
	case errors.As(err, new(*exec.ExitError)):
		return fmt.Errorf("%w: ctr %s: %s", ErrEngine, args[0], strings.TrimSpace(strings.TrimPrefix(stderr.String(), "ctr: ")))
	case err != nil:
		return fmt.Errorf("%w: ctr %s: %w", ErrEngine, args[0], err)
	}
	return nil
}

// ID implements [Engine].
func (c *containerd) ID(context.Context) (string, error) {
	return containerdScheme + "://" + c.socket, nil
}

// Find implements [Engine]. The identity is the manifest's digest.
func (c *containerd) Find(ctx context.Context, reference string) (id v1.Hash, state State, err error) {
	// REF TYPE DIGEST STATUS SIZE UNPACKED, where the size is two fields
	out, err := c.run(ctx, nil, "images", "check", "name=="+reference)
	if err != nil {
		return v1.Hash{}, Usable, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != reference {
			continue
		}
		id, err := v1.NewHash(fields[2])
		if err != nil {
			return v1.Hash{}, Usable, fmt.Errorf("%w: ctr images check: %w", ErrEngine, err)
		}
		if fields[3] != "complete" {
			return id, Incomplete, nil
		}
		if fields[len(fields)-1] != "true" { // it is not unpacked
			if layerless, err := c.isLayerless(ctx, id); err != nil || !layerless {
				return id, Incomplete, err
			}
		}
		return id, Usable, nil
	}
	return v1.Hash{}, Usable, nil
}

// isLayerless reports whether an image has no layers: then there is nothing to unpack, and
// containerd has no snapshot of it.
func (c *containerd) isLayerless(ctx context.Context, id v1.Hash) (bool, error) {
	raw, err := c.run(ctx, nil, "content", "get", id.String())
	if err != nil {
		return false, err
	}
	var manifest v1.Manifest // of an index no field is set
	if json.Unmarshal([]byte(raw), &manifest) != nil {
		return false, nil
	}
	return manifest.Config.Digest != v1.Hash{} && len(manifest.Layers) == 0, nil
}

// Has implements [Engine].
func (c *containerd) Has(ctx context.Context, image *tarball.Image) (map[v1.Hash]bool, error) {
	out, err := c.run(ctx, nil, "content", "ls", "-q")
	if err != nil {
		return nil, err
	}
	blobs := map[string]bool{}
	for blob := range strings.FieldsSeq(out) {
		blobs[blob] = true
	}
	has := map[v1.Hash]bool{}
	for _, l := range image.Layers() {
		has[l.Digest] = blobs[l.Digest.String()]
	}
	return has, nil
}

// Load implements [Engine].
func (c *containerd) Load(ctx context.Context, archive io.Reader, _ int64) error {
	_, err := c.run(ctx, archive, slices.Concat([]string{"images", "import"}, c.local, []string{"-"})...)
	return err
}

// Verify implements [Engine]. [containerd.Find] has checked all that there is.
func (c *containerd) Verify(context.Context, v1.Hash) error { return nil }

// NamesEarly implements [EarlyNamer]. ctr unpacks after containerd has given the image its
// name. The image that had it before would lose its last name by that, and containerd would
// remove its layers, also those that this image needs.
func (c *containerd) NamesEarly(context.Context) bool { return true }

// ReadsZstd implements [ZstdReader].
func (c *containerd) ReadsZstd(_ context.Context, mediaType types.MediaType) error {
	return containerdReadsZstd(c.version, mediaType)
}

// Name implements [Engine]. ctr can only tag an image that already has a name.
func (c *containerd) Name(ctx context.Context, reference string, id v1.Hash) error {
	if id != (v1.Hash{}) {
		other, err := c.nameOf(ctx, id)
		if err != nil {
			return err
		}
		if other != "" {
			_, err := c.run(ctx, nil, "images", "tag", "--force", other, reference)
			return err
		}
	}
	_, err := c.run(ctx, nil, "images", "rm", reference)
	if err == nil && id != (v1.Hash{}) {
		// The image that had the name before has lost it, and containerd will remove that.
		err = fmt.Errorf("%w: ctr cannot give the reference %s back to %s, so the reference is unset", ErrEngine, reference, id)
	}
	return err
}

// nameOf returns a name of the image with this identity, "" if it has none.
func (c *containerd) nameOf(ctx context.Context, id v1.Hash) (string, error) {
	out, err := c.run(ctx, nil, "images", "ls") // REF TYPE DIGEST ...
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == id.String() {
			return fields[0], nil
		}
	}
	return "", nil
}

// Remove implements [Remover]. containerd removes a reference whatever uses it, so the
// containers are looked at before. In the namespace of Kubernetes its plugin for that gives each
// image a second name, made of the digest of its config, and keeps that when the reference goes:
// it is removed too when it is the last. What has no name containerd removes by itself.
func (c *containerd) Remove(ctx context.Context, reference string) error {
	out, err := c.run(ctx, nil, "images", "ls") // REF TYPE DIGEST ...
	if err != nil {
		return err
	}
	digests := map[string]string{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 {
			digests[fields[0]] = fields[2]
		}
	}
	digest, ok := digests[reference]
	if !ok {
		return nil
	}
	if out, err = c.run(ctx, nil, "containers", "ls"); err != nil { // CONTAINER IMAGE RUNTIME
		return err
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 && digests[fields[1]] == digest {
			return fmt.Errorf("%w: %s has %s", ErrInUse, fields[0], fields[1])
		}
	}
	// It waits until what no other image has is gone too: who stops containerd next keeps none of it.
	remove, last := []string{"images", "rm", "--sync", reference}, true
	for name, other := range digests {
		if other == digest && strings.HasPrefix(name, "sha256:") {
			remove = append(remove, name)
		} else if other == digest && name != reference {
			last = false
		}
	}
	if !last {
		remove = remove[:4]
	}
	_, err = c.run(ctx, nil, remove...)
	return err
}

// pinnedLabel is what Kubernetes' plugin of containerd 1.7 and later reports as a pinned image
// (https://github.com/containerd/containerd/blob/v1.7.0/pkg/cri/labels/labels.go); the kubelet
// does not remove those.
const pinnedLabel = "io.cri-containerd.pinned=pinned"

// Pin implements [Pinner].
func (c *containerd) Pin(ctx context.Context, reference string) error {
	_, err := c.run(ctx, nil, "images", "label", reference, pinnedLabel)
	return err
}

// verifierDir is where containerd 2 looks for programs that judge pulls, by default
// (https://github.com/containerd/containerd/blob/main/docs/image-verification.md).
const verifierDir = "/opt/containerd/image-verifier/bin"

// Pulls implements [Puller]. Where verifiers judge what containerd pulls, nothing is pulled: they would be given
// the name that the image has on loopback, which no policy can know. What ctr pulls by itself they
// do not see, and an archive neither: so that does not depend on who pulls. containerd does not say
// whether it has any, so that is found out where they are by default.
func (c *containerd) Pulls(context.Context) bool {
	return runtime.GOOS == "linux" && !hasFiles(c.verifiers)
}

// hasFiles reports whether there is anything in a directory, or may be.
func hasFiles(dir string) bool {
	files, err := os.ReadDir(dir)
	return len(files) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// Pull implements [Puller].
func (c *containerd) Pull(ctx context.Context, reference string) error {
	// It paints its progress, which is no use here and has no end.
	return c.exec(ctx, nil, io.Discard, slices.Concat([]string{"images", "pull", "--plain-http"}, c.local, []string{reference})...)
}
