package artifacts_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
)

func goodRun() artifacts.Run {
	return artifacts.Run{
		ID: 5, Name: "docker-builds", Path: ".github/workflows/docker-builds.yml@refs/heads/main", Event: "push", Status: "completed",
		Conclusion: "success", HeadBranch: "main", Repository: repo, HeadRepository: repo,
	}
}

func TestPolicy(t *testing.T) {
	for _, event := range []string{"push", "schedule", "workflow_dispatch"} {
		run := goodRun()
		run.Event = event
		require.NoError(t, (&artifacts.Policy{}).Check(&run))
	}
	for _, policy := range []artifacts.Policy{
		{Owner: "Example"}, {Branches: []string{"x", "main"}}, {Branches: []string{"ma*"}}, {Branches: []string{"*"}},
		{Workflows: []string{"docker-builds"}}, {Workflows: []string{"docker-builds.yml"}}, {Workflows: []string{".github/workflows/docker-builds.yml"}},
		{Workflows: []string{".github/workflows/docker-builds.yml@refs/heads/main"}}, {Workflows: []string{"x", "docker-builds.yml@refs/heads/main"}},
	} {
		run := goodRun()
		require.NoError(t, policy.Check(&run), "%+v", policy)
	}
}

func TestPolicyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*artifacts.Run)
		says   string
	}{
		"failed":            {func(r *artifacts.Run) { r.Conclusion = "failure" }, `rule for the conclusion: it is "failure"`},
		"cancelled":         {func(r *artifacts.Run) { r.Conclusion = "cancelled" }, "rule for the conclusion"},
		"running":           {func(r *artifacts.Run) { r.Status, r.Conclusion = "in_progress", "" }, `rule for the status: it is "in_progress"`},
		"no conclusion":     {func(r *artifacts.Run) { r.Conclusion = "" }, "rule for the conclusion"},
		"a pull request":    {func(r *artifacts.Run) { r.Event = "pull_request" }, `rule for the event: the run was started by "pull_request"`},
		"its target":        {func(r *artifacts.Run) { r.Event = "pull_request_target" }, "rule for the event"},
		"case of the event": {func(r *artifacts.Run) { r.Event = "Push" }, "rule for the event"},
		"a fork's main":     {func(r *artifacts.Run) { r.HeadRepository = "evil/project" }, `rule for the head repository: the commit is from "evil/project"`},
		"a deleted fork":    {func(r *artifacts.Run) { r.HeadRepository = "" }, `"a deleted fork"`},
		"another owner":     {func(r *artifacts.Run) { r.Repository, r.HeadRepository = "evil/project", "evil/project" }, `rule for the owner: it is "evil", want "example"`},
		"another branch":    {func(r *artifacts.Run) { r.HeadBranch = "mainly" }, `rule for the branch: it is "mainly"`},
		"no branch":         {func(r *artifacts.Run) { r.HeadBranch = "" }, "rule for the branch"},
		"case of a branch":  {func(r *artifacts.Run) { r.HeadBranch = "Main" }, "rule for the branch"},
		"not at its start":  {func(r *artifacts.Run) { r.HeadBranch = "x/release/2" }, "rule for the branch"},
		"another workflow":  {func(r *artifacts.Run) { r.Name, r.Path = "lint", ".github/workflows/lint.yml" }, "rule for the workflow"},
		"no repository":     {func(r *artifacts.Run) { r.Repository, r.HeadRepository = "", "" }, "rule for the repository"},
		"odd repository":    {func(r *artifacts.Run) { r.Repository, r.HeadRepository = "example/project/x", "example/project/x" }, "rule for the repository"},
	} {
		policy := artifacts.Policy{Owner: "example", Branches: []string{"main", "release/*"}, Workflows: []string{"docker-builds"}}
		run := goodRun()
		require.NoError(t, policy.Check(&run))
		c.change(&run)
		err := policy.Check(&run)
		require.ErrorIs(t, err, artifacts.ErrRefused, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.ErrorContains(t, err, "trust run 5 of")
	}
	run := goodRun()
	run.Event = "push"
	require.ErrorIs(t, (&artifacts.Policy{Events: []string{"schedule"}}).Check(&run), artifacts.ErrRefused)
}

// A file is one, whatever the workflow is called; a name is what any file may state.
func TestPolicyOfWorkflowFiles(t *testing.T) {
	const file = ".github/workflows/docker-builds.yml"
	for _, entry := range []string{file, "docker-builds.yml"} {
		policy := artifacts.Policy{Workflows: []string{entry}}
		require.NoError(t, policy.Validate())
		for _, path := range []string{file, file + "@main", file + "@refs/heads/main", file + "@refs/tags/v1.0", file + "@release/2.9"} {
			run := goodRun()
			run.Path, run.Name = path, "any"
			require.NoError(t, policy.Check(&run), path)
		}
		for _, path := range []string{
			".github/workflows/evil.yml", ".github/workflows/evil.yml@refs/heads/main", "", file + "@", file + "x", file + ".yml", "x/" + file, "/" + file, "./" + file,
			".github/workflows/sub/docker-builds.yml", "docker-builds.yml", ".github/workflows/Docker-Builds.yml", ".github/workflows/docker-builds.yaml",
			file + "@x.yml", file + "@x.yaml", file + "@x.yml@refs/heads/main", ".github/workflows/evil.yml@" + file, "dynamic/docker-builds.yml",
		} {
			for _, name := range []string{"docker-builds", "docker-builds.yml", file} {
				run := goodRun()
				run.Path, run.Name = path, name
				err := policy.Check(&run)
				require.ErrorIs(t, err, artifacts.ErrRefused, "%s %s", path, name)
				assert.ErrorContains(t, err, "rule for the workflow")
			}
		}
	}
	run := goodRun()
	run.Name, run.Path = "docker-builds", ".github/workflows/evil.yml"
	require.NoError(t, (&artifacts.Policy{Workflows: []string{"docker-builds"}}).Check(&run), "that is how weak a name is")
	for _, entry := range []string{"", "/" + file, "./" + file, ".github//workflows/x.yml", "../x.yml"} {
		err := (&artifacts.Policy{Workflows: []string{entry}}).Validate()
		if entry == "../x.yml" {
			require.NoError(t, err, "it is a path, of no run")
			continue
		}
		require.ErrorIs(t, err, artifacts.ErrRequest, entry)
		assert.ErrorContains(t, err, "want a file as .github/workflows/FILE.yml")
	}
}

func TestCheckReference(t *testing.T) {
	policy := artifacts.Policy{Allow: []string{"308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image", "ghcr.io/pytorch/*", "localhost:5000/x", "docker.io/library/debian"}}
	require.NoError(t, policy.Validate())
	const hash = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for _, ref := range []string{
		"308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:jammy-2f5e", "ghcr.io/pytorch/ci-image:x", "ghcr.io/pytorch/a/b" + hash, "localhost:5000/x:t",
		"debian:12", "docker.io/debian:12", "docker.io/library/debian:12", "index.docker.io/library/debian:12",
	} {
		require.NoError(t, policy.CheckReference(ref), ref)
	}
	for _, ref := range []string{
		"", ":", "x", "x:t", "ghcr.io/other/ci-image:x", "ghcr.io/pytorch:x", "ghcr.io/pytorchevil/x:t", "ghcr.io/pytorch/../other/x:t", "ghcr.io/pytorch//x:t",
		"GHCR.IO/pytorch/x:t", "ghcr.io:443/pytorch/x:t", "ghcr.io./pytorch/x:t", "ghcr.io@evil.example/pytorch/x:t", "ghcr.io:pw@evil.example/pytorch/x:t", "evil.example/ghcr.io/pytorch/x:t",
		"https://ghcr.io/pytorch/x:t", "ghcr.io/pytorch/x:t\n", " ghcr.io/pytorch/x:t", "ghcr.io/Pytorch/x:t", "ghcr.io\\pytorch/x:t", "ghcr.io/pytorch/x:t#", "ghcr.io/pytorch/x@sha256:00",
		"308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image/x:t", "308535385114.dkr.ecr.us-east-1.amazonaws.com.evil.example/pytorch/ci-image:t",
		"308535385114.dkr.ecr.us-west-1.amazonaws.com/pytorch/ci-image:t", "localhost/x:t", "localhost:5001/x:t", "x:5000/x:t", "evil/debian:12", "quay.io/library/debian:12",
	} {
		err := policy.CheckReference(ref)
		require.ErrorIs(t, err, artifacts.ErrRefused, ref)
		assert.ErrorContains(t, err, "by the rule for re")
		require.ErrorIs(t, (&artifacts.Policy{}).CheckReference(ref), artifacts.ErrRefused, "nothing is allowed unless it is said")
	}
	require.ErrorIs(t, (&artifacts.Policy{}).CheckReference("debian:12"), artifacts.ErrRefused)
	require.NoError(t, (&artifacts.Policy{AnyReference: true}).CheckReference("debian:12"))
	require.ErrorIs(t, (&artifacts.Policy{AnyReference: true, Allow: policy.Allow}).CheckReference("x:t"), artifacts.ErrRefused)
	require.ErrorIs(t, (&artifacts.Policy{AnyReference: true}).CheckReference("not a reference"), artifacts.ErrRefused)
}

func TestPolicyValidate(t *testing.T) {
	for _, entry := range []string{"", "*", "/*", "debian", "pytorch/ci-image", "ghcr.io/x:tag", "ghcr.io/x@sha256:" + "0000000000000000000000000000000000000000000000000000000000000000", "https://ghcr.io/x", "ghcr.io/X", "ghcr.io/x/", "ghcr.io/x*", "ghcr.io", "index.docker.io/library/x"} {
		err := (&artifacts.Policy{Allow: []string{entry}}).Validate()
		require.ErrorIs(t, err, artifacts.ErrRequest, entry)
		assert.ErrorContains(t, err, "want HOST/REPOSITORY")
	}
	require.NoError(t, (&artifacts.Policy{Allow: []string{"ghcr.io/*", "localhost:5000/x/*"}}).Validate())
}

// What is no reference may have a password or a signature in it, which is not shown.
func TestPolicyHidesPasswords(t *testing.T) {
	for _, ref := range []string{"user:topsecret@ghcr.io/x", "ghcr.io/x#topsecret", "ghcr.io/x?topsecret", "topsecret@x@ghcr.io/x", "https://u:topsecret@ghcr.io/x"} {
		for _, err := range []error{
			(&artifacts.Policy{Allow: []string{ref}}).Validate(),
			(&artifacts.Policy{AnyReference: true}).CheckReference(ref),
		} {
			require.ErrorContains(t, err, "ghcr.io/x")
			assert.NotContains(t, err.Error(), "topsecret")
		}
	}
}
