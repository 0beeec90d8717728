package artifacts_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
	"testing/fstest"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

func Example() {
	ctx := context.Background()
	api, event := exampleRun() // in a job: artifacts.EnvironmentEvent(os.Getenv)

	client, err := artifacts.New(&artifacts.Options{APIURL: api, Token: os.Getenv("GITHUB_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	build, err := client.Fetch(ctx, &artifacts.Request{Event: event, Policy: artifacts.Policy{
		Branches: []string{"main", "release/*"},
		Allow:    []string{"ghcr.io/example/*"},
	}})
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range build.Outputs {
		fmt.Println(build.Run.HeadBranch, o.Name, o.Reference)
	}
	// Output:
	// main jammy ghcr.io/example/ci-image:jammy-2f5e
}

// A rule of one's own for runs: only of one commit. And a format of one's own: each
// artifact has a file that contains nothing but a reference.
func ExampleRequest() {
	ctx := context.Background()
	api, event := exampleRun()
	client, err := artifacts.New(&artifacts.Options{APIURL: api})
	if err != nil {
		log.Fatal(err)
	}
	build, err := client.Fetch(ctx, &artifacts.Request{
		Event:  event,
		Policy: artifacts.Policy{Allow: []string{"ghcr.io/example/*"}},
		Accept: func(_ context.Context, run *artifacts.Run, refusal error) error {
			if refusal == nil && !strings.HasPrefix(run.HeadSHA, "2f5e") {
				return fmt.Errorf("want a run of commit 2f5e, not %s", run.HeadSHA)
			}
			return refusal
		},
		Parse: func(files fs.FS) (outputs, overridden []artifacts.Output, err error) {
			reference, err := fs.ReadFile(files, "reference")
			return []artifacts.Output{{Name: "jammy", Reference: string(reference)}}, nil, err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(build.Outputs[0].Reference)
	// Output:
	// ghcr.io/example/ci-image:jammy-2f5e
}

// exampleRun starts an API in process that has one finished run.
func exampleRun() (apiURL string, event *artifacts.Event) {
	server, err := artifactstest.Start()
	if err != nil {
		log.Fatal(err)
	}
	run := server.AddRun(artifactstest.Run{})
	server.AddArtifact(run, artifactstest.Artifact{
		Name: "docker-builds-artifacts-jammy",
		Files: map[string]string{
			"docker-builds-output-jammy.txt": "jammy=ghcr.io/example/ci-image:jammy-2f5e\n",
			"reference":                      "ghcr.io/example/ci-image:jammy-2f5e",
		},
	})
	event, err = artifacts.ReadEvent("workflow_run", bytes.NewReader(artifactstest.WorkflowRunEvent(run)))
	if err != nil {
		log.Fatal(err)
	}
	return server.URL(), event
}

func ExampleReadOutputs() {
	downloaded := fstest.MapFS{ // or os.DirFS("docker-builds-artifacts")
		"docker-builds-output-jammy.txt": {Data: []byte("jammy=registry.example.com/ci-image:jammy-2f5e\n")},
		"docker-builds-output-noble.txt": {Data: []byte("noble=registry.example.com/ci-image:noble-2f5e")},
	}

	outputs, overridden, err := artifacts.ReadOutputs(downloaded)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range overridden {
		fmt.Fprintf(os.Stderr, "%s:%d is overridden\n", o.File, o.Line)
	}
	for _, o := range outputs {
		fmt.Println(o.Name, o.Reference)
	}
	// Output:
	// jammy registry.example.com/ci-image:jammy-2f5e
	// noble registry.example.com/ci-image:noble-2f5e
}
