package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"docker-cache": main})
}

// The scripts run the program against two registries in this process: $OWN and
// $MIRROR, as HOST:PORT. Both have team/image with the tags jammy-1 and
// noble-1; $OWN alone has team/image:own-1, and some that cannot be stocked. The API
// has the runs of addRuns; the script is a job of Actions only once event or dispatch
// has made it one.
func TestScripts(t *testing.T) {
	commands := scripttest.BuildCommands()
	commands["untouched"], commands["digest"] = untouched, digest
	// quirks own|mirror|api|bucket JSON: what a server does wrong from now on.
	commands["quirks"] = func(ts *testscript.TestScript, neg bool, args []string) {
		switch args[0] {
		case "api":
			scripttest.Quirks[*artifactstest.Server](artifactstest.Quirks{})(ts, neg, args)
			return
		case "bucket":
			scripttest.Quirks[*buckettest.Server](buckettest.Quirks{})(ts, neg, args)
			return
		}
		scripttest.Quirks[*registrytest.Server](registrytest.Quirks{})(ts, neg, args)
	}
	// asked own|mirror PATH...: what was asked since it was last called, all of it.
	commands["asked"] = func(ts *testscript.TestScript, _ bool, args []string) {
		var have []string
		requests := ts.Value(args[0]).(*registrytest.Server).Requests()
		before, _ := strconv.Atoi(ts.Getenv("ASKED_" + args[0]))
		for _, r := range requests[before:] {
			have = append(have, r.Path)
		}
		ts.Setenv("ASKED_"+args[0], strconv.Itoa(len(requests)))
		if len(args) > 1 && fmt.Sprint(have) != fmt.Sprint(args[1:]) {
			ts.Fatalf("%s was asked for %q, want %q", args[0], have, args[1:])
		}
	}
	// group FILE GROUP: what the directory has recorded of a tarball.
	commands["group"] = func(ts *testscript.TestScript, _ bool, args []string) {
		dir, err := cache.Open(filepath.Dir(ts.MkAbs(args[0])), nil)
		ts.Check(err)
		all, err := dir.List(t.Context())
		ts.Check(err)
		i := slices.IndexFunc(all, func(e cache.Entry) bool { return e.Name == filepath.Base(args[0]) })
		if i < 0 || all[i].Group != args[1] {
			ts.Fatalf("%s is not of group %q: %v", args[0], args[1], all)
		}
	}
	scripttest.Run(t, func(env *testscript.Env) error {
		own, err := registrytest.Start()
		if err != nil {
			return err
		}
		mirror, err := registrytest.Start()
		if err != nil {
			return err
		}
		env.Defer(own.Close)
		env.Defer(mirror.Close)
		env.Values["own"], env.Values["mirror"] = own, mirror
		env.Setenv("OWN", own.Host())
		env.Setenv("MIRROR", mirror.Host())
		for _, tag := range []string{"jammy-1", "noble-1", "own-1"} {
			image, err := random.Image(50_000, 3)
			if err != nil {
				return err
			}
			if _, err := own.Push("team/image:"+tag, image); err != nil {
				return err
			}
			if tag == "own-1" {
				continue
			}
			if _, err := mirror.Push("team/image:"+tag, image); err != nil {
				return err
			}
		}
		if err := addNames(own); err != nil {
			return err
		}
		own.PushManifest("team/html:t-1", []byte("<html>"), types.OCIManifestSchema1)
		own.PushManifest("team/schema1:t-1", []byte(`{"schemaVersion":1}`), types.DockerManifestSchema1)
		own.PushManifest("team/index:t-1", []byte(`{"schemaVersion":2,"mediaType":"`+string(types.OCIImageIndex)+`","manifests":[{"mediaType":"`+string(types.OCIManifestSchema1)+`","digest":"sha256:`+fmt.Sprintf("%064d", 0)+`","size":1,"platform":{"os":"linux","architecture":"s390x"}}]}`), types.OCIImageIndex)
		if err := pushOdd(own); err != nil {
			return err
		}
		api, err := artifactstest.Start()
		if err != nil {
			return err
		}
		env.Defer(api.Close)
		addRuns(api, own.Host()).SetUp(env)
		scripttest.SetUpBucket(t, env)
		return os.Mkdir(filepath.Join(env.WorkDir, "dir"), 0o755)
	}, commands)
}

// pushOdd adds images that are not as the specification has them, in team/odd:
//
//	old-1     config and layer are of the type application/octet-stream, and the config has strings where lists should be
//	beside-1  in an index, beside attestations and signatures
//	empty-1   an index of nothing but attestations
func pushOdd(s *registrytest.Server) error {
	image, err := random.Image(1000, 1)
	if err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	diffID, err := layers[0].DiffID()
	if err != nil {
		return err
	}
	if _, err := s.Push("team/odd:plain-1", image); err != nil {
		return err
	}
	m, err := image.Manifest()
	if err != nil {
		return err
	}
	config := fmt.Appendf(nil, `{"os":"linux","architecture":%q,"created":"?","config":{"Entrypoint":"sh","Env":null},"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, diffID)
	s.PushBlob("team/odd", config, true)
	const octets = "application/octet-stream"
	entry := func(mediaType string, content []byte, more string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%x","size":%d%s}`, mediaType, sha256.Sum256(content), len(content), more)
	}
	old := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		types.DockerManifestSchema2, entry(octets, config, ""), octets, m.Layers[0].Digest, m.Layers[0].Size)
	s.PushManifest("team/odd:old-1", old, types.DockerManifestSchema2)

	index := func(tag string, entries ...string) {
		s.PushManifest("team/odd:"+tag, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, types.OCIImageIndex, strings.Join(entries, ",")), types.OCIImageIndex)
	}
	attestation := entry(string(types.OCIManifestSchema1), nil, `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"},"platform":{"os":"unknown","architecture":"unknown"}`)
	signature := entry(string(types.OCIManifestSchema1), nil, `,"artifactType":"application/vnd.cncf.notary.signature"`)
	index("beside-1", attestation, entry(string(types.DockerManifestSchema2), old, fmt.Sprintf(`,"platform":{"os":"linux","architecture":%q}`, runtime.GOARCH)), attestation, signature)
	index("empty-1", attestation)
	return nil
}

// A signal in the middle of a layer: exit code 130, nothing under the final
// name, and the next run leaves nothing but the tarball.
func TestSignals(t *testing.T) {
	for _, signal := range scripttest.Signals() {
		server := registrytest.New(t)
		image, err := random.Image(5_000_000, 2)
		require.NoError(t, err)
		ref, err := server.Push("team/image:jammy-1", image)
		require.NoError(t, err)
		stalled := make(chan struct{}) // closed when a layer is half there
		server.SetQuirks(registrytest.Quirks{Stall: true, Stalled: stalled})
		dir := t.TempDir()
		scripttest.Interrupt(t, scripttest.Command(t, "docker-cache", "-dir", dir, "-branch", "main", "-json", ref), signal, stalled)
		for _, e := range entries(t, dir) {
			assert.True(t, strings.HasPrefix(e.Name(), "."), "%s is no final name", e.Name())
		}

		// The next run goes on where this one stopped.
		server.SetQuirks(registrytest.Quirks{})
		out, err := scripttest.Command(t, "docker-cache", "-dir", dir, "-branch", "main", "-json", ref).Output()
		require.NoError(t, err)
		var r report.Stocked
		require.NoError(t, json.Unmarshal(out, &r))
		assert.Equal(t, "stocked", r.Outcome)
		var left []string
		for _, e := range entries(t, dir) {
			if !scripttest.Recorded(e.Name()) {
				left = append(left, e.Name())
			}
		}
		assert.Equal(t, []string{"jammy_main.tar"}, left)
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	return found
}
