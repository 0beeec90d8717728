package artifacts_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

func TestList(t *testing.T) {
	s := artifactstest.New(t)
	run, other := s.AddRun(artifactstest.Run{}), s.AddRun(artifactstest.Run{})
	for _, name := range []string{"build-b", "build-a", "logs", "build-a", "build-c"} { // of two attempts
		s.AddArtifact(run, artifactstest.Artifact{Name: name, Expired: name == "build-c"})
	}
	last := s.AddArtifact(run, artifactstest.Artifact{Name: "build-a", Digest: "-"})
	s.AddArtifact(other, artifactstest.Artifact{Name: "build-x"})
	for _, pageSize := range []int{0, 1, 2, 3} {
		s.SetQuirks(artifactstest.Quirks{PageSize: pageSize})
		list, err := newClient(t, s, nil).List(t.Context(), repo, run.ID, "build-*")
		require.NoError(t, err)
		var names []string
		for _, a := range list {
			names = append(names, fmt.Sprint(a.Name, a.Expired))
			assert.Equal(t, run.ID, a.RunID)
		}
		assert.Equal(t, []string{"build-afalse", "build-bfalse", "build-ctrue"}, names, "page size %d", pageSize)
		assert.Equal(t, last, list[0].ID, "the newest of the same name")
		assert.Empty(t, list[0].Digest)
		assert.Regexp(t, "^sha256:[0-9a-f]{64}$", list[1].Digest)
		assert.Positive(t, list[1].Size)
		assert.Equal(t, 2026, list[1].ExpiresAt.Year())
	}
	none, err := newClient(t, s, nil).List(t.Context(), repo, run.ID, "x*")
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestListOfHundreds(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	for i := range 250 {
		s.AddArtifact(run, artifactstest.Artifact{Name: fmt.Sprintf("a-%03d", i)})
	}
	list, err := newClient(t, s, nil).List(t.Context(), repo, run.ID, "*")
	require.NoError(t, err)
	assert.Len(t, list, 250)
	assert.Len(t, s.Requests(), 3)
	assert.Equal(t, "page=3&per_page=100", s.Requests()[2].Query)
	_, err = newClient(t, s, func(o *artifacts.Options) { o.Limits.Artifacts = 249 }).List(t.Context(), repo, run.ID, "*")
	require.ErrorIs(t, err, artifacts.ErrLimit)
}

func TestListErrors(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	s.AddArtifact(run, artifactstest.Artifact{Name: "a"})
	for _, c := range []struct {
		quirks artifactstest.Quirks
		kind   error
		says   string
	}{
		{artifactstest.Quirks{NoPermission: true}, artifacts.ErrNotFound, `list the artifacts of run`},
		{artifactstest.Quirks{TooMany: 2}, artifacts.ErrAnswer, "it has 3 artifacts, but the pages hold 1"},
		{artifactstest.Quirks{OtherRun: true}, artifacts.ErrOtherRepository, "is of run"},
	} {
		s.SetQuirks(c.quirks)
		_, err := newClient(t, s, nil).List(t.Context(), repo, run.ID, "*")
		require.ErrorIs(t, err, c.kind)
		assert.ErrorContains(t, err, c.says)
	}
	_, err := newClient(t, s, nil).List(t.Context(), "example/other", run.ID, "*")
	require.ErrorIs(t, err, artifacts.ErrNotFound)
}
