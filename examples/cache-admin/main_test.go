package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// datarootTemplate is the smallest file that looks like a template, in the format that the package
// dataroot documents with its Record.
func datarootTemplate() ([]byte, error) {
	const size = 4096
	record, err := json.Marshal(dataroot.Record{FileSystem: "ext4", Size: size, OS: "linux", Architecture: "amd64",
		Engine: dataroot.EngineRecord{Kind: dataroot.Docker, Version: "1", Driver: "overlay2"}})
	if err != nil {
		return nil, err
	}
	file := make([]byte, size)
	copy(file[1024+0x38:], "\x53\xef")
	file = append(file, record...)
	file = binary.BigEndian.AppendUint64(file, size)
	file = binary.BigEndian.AppendUint64(file, uint64(len(record)))
	sum := sha256.Sum256(record)
	return append(append(file, sum[:]...), "dockercache-dr1\n"...), nil
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cache-admin": main})
}

// The scripts run the program in a directory "dir" with a_main.tar and
// a_release.tar, of one image, and b_main.tar, from the registry $OWN; and an engine that has
// no image, $DOCKER_HOST.
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(env *testscript.Env) error {
		own, err := registrytest.Start()
		if err != nil {
			return err
		}
		env.Defer(own.Close)
		env.Values["own"] = own
		env.Setenv("OWN", own.Host())
		engine, err := enginetest.Start(enginetest.Options{})
		if err != nil {
			return err
		}
		env.Defer(engine.Close)
		env.Values["engine"] = engine
		env.Setenv("DOCKER_HOST", engine.Address())
		scripttest.SetUpBucket(t, env)
		dir, err := cache.Open(env.WorkDir+"/dir", &cache.Options{DirMode: 0o755})
		if err != nil {
			return err
		}
		for _, tag := range []string{"a", "b"} {
			image, err := random.Image(50_000, 3)
			if err != nil {
				return err
			}
			if tag == "a" { // b's config states no platform
				config, err := image.ConfigFile()
				if err != nil {
					return err
				}
				config.OS, config.Architecture, config.Variant = "linux", "arm64", "v8"
				if image, err = mutate.ConfigFile(image, config); err != nil {
					return err
				}
			}
			ref, err := own.Push("team/image:"+tag+"-1", image)
			if err != nil {
				return err
			}
			remote, err := registry.New(nil).Resolve(t.Context(), registry.DefaultPlatform(), ref)
			if err != nil {
				return err
			}
			for i, name := range map[string][]string{"a": {"a_main.tar", "a_release.tar"}, "b": {"b_main.tar"}}[tag] {
				p := tarball.Provenance{Source: ref, Branch: "main", Run: tarball.Run{ID: int64(7 + i), Attempt: 1}}
				if _, err := dir.Stock(t.Context(), name, ref, remote, &cache.PutOptions{Provenance: p}); err != nil {
					return err
				}
			}
		}
		return nil
	}, scripttest.Commands{
		"quirks": scripttest.Quirks[*registrytest.Server](registrytest.Quirks{}),
		// saved FILE REF...: writes the file as docker save does.
		"saved": func(ts *testscript.TestScript, _ bool, args []string) {
			archive, err := tarballtest.Saved(args[1:], 5000, "a")
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), archive, 0o600))
		},
		// truncated FROM TO: all but the last bytes.
		"truncated": func(ts *testscript.TestScript, _ bool, args []string) {
			raw := []byte(ts.ReadFile(args[0]))
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), raw[:len(raw)-1024], 0o644))
		},
		// noimages: the engine has no image.
		"noimages": func(ts *testscript.TestScript, _ bool, _ []string) {
			if ids := ts.Value("engine").(*enginetest.Engine).IDs(); len(ids) > 0 {
				ts.Fatalf("the engine has %q", ids)
			}
		},
		// use FILE: it is being read, until the end of the script.
		"use": func(ts *testscript.TestScript, _ bool, args []string) {
			dir, err := cache.Open(filepath.Dir(ts.MkAbs(args[0])), nil)
			ts.Check(err)
			file, err := dir.Get(context.Background(), filepath.Base(args[0]))
			ts.Check(err)
			ts.Defer(func() { _ = file.Close() })
		},
		// template FILE: it is one of engine-root, as far as can be seen without mounting it.
		"template": func(ts *testscript.TestScript, _ bool, args []string) {
			file, err := datarootTemplate()
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), file, 0o644))
		},
		// age FILE DURATION: it was written so long ago.
		"age": func(ts *testscript.TestScript, _ bool, args []string) {
			d, err := time.ParseDuration(args[1])
			ts.Check(err)
			at := time.Now().Add(-d)
			ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
		},
	})
}
