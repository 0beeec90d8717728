package artifacts_test

import (
	"fmt"
	"net/http"
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
	// A list that is not consistent is not complete, and ends.
	item := func(id, more string) string {
		return `{"id": ` + id + `, "name": "a", "workflow_run": {"id": 5}` + more + `}`
	}
	next := 0
	for name, c := range map[string]struct {
		page  func() string
		says  string
		pages int
	}{
		"the same for ever": {func() string { return `{"total_count": 999, "artifacts": [` + item("7", "") + `]}` }, "page 2 repeats artifact 7", 2},
		"a few of many": {func() string {
			next++
			return `{"total_count": 999, "artifacts": [` + item(fmt.Sprint(next), "") + `]}`
		}, "it has 999 artifacts, but 49 pages of up to 100 hold only 49", 49},
		"complete by a copy": {func() string { return `{"total_count": 2, "artifacts": [` + item("7", "") + "," + item("7", "") + `]}` }, "page 1 repeats artifact 7", 1},
		"and over two pages": {func() string { return `{"total_count": 2, "artifacts": [` + item("7", "") + `]}` }, "page 2 repeats artifact 7", 2},
		"more than it has":   {func() string { return `{"total_count": 1, "artifacts": [` + item("7", "") + "," + item("8", "") + `]}` }, "it has 1 artifacts, but the pages hold 2", 1},
		"no count":           {func() string { return `{"artifacts": [` + item("7", "") + `]}` }, "it has 0 artifacts, but the pages hold 1", 1},
		"a negative count":   {func() string { return `{"total_count": -1, "artifacts": []}` }, "it has -1 artifacts", 1},
		"empty pages":        {func() string { return `{"total_count": 999, "artifacts": []}` }, "it has 999 artifacts, but the pages hold 0", 1},
		"no ID":              {func() string { return `{"total_count": 1, "artifacts": [{"name": "a"}]}` }, "the ID 0", 1},
		"a negative size":    {func() string { return `{"total_count": 1, "artifacts": [` + item("7", `, "size_in_bytes": -5`) + `]}` }, "-5 bytes", 1},
		"another list":       {func() string { return `{"total_count": 0, "artifacts": [], "Artifacts": [` + item("7", "") + `]}` }, `"Artifacts": the name must be "artifacts"`, 1},
		"two counts":         {func() string { return `{"total_count": 9, "total_count": 0, "artifacts": []}` }, `"total_count" is there twice`, 1},
		"two digests": {func() string {
			return `{"total_count": 1, "artifacts": [` + item("7", `, "digest": "x", "Digest": "y"`) + `]}`
		}, `"artifacts[0].Digest": the name must be "digest"`, 1},
		"another run's": {func() string {
			return `{"total_count": 1, "artifacts": [` + item("7", `, "WORKFLOW_RUN": {"id": 6}`) + `]}`
		}, `"artifacts[0].WORKFLOW_RUN"`, 1},
	} {
		a := &answers{all: []func(http.ResponseWriter){func(w http.ResponseWriter) { _, _ = w.Write([]byte(c.page())) }}}
		client, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: a})
		require.NoError(t, err)
		_, err = client.List(t.Context(), repo, 5, "*")
		require.ErrorIs(t, err, artifacts.ErrAnswer, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.Equal(t, c.pages, a.asked, name)
	}
	a := &answers{all: []func(http.ResponseWriter){func(w http.ResponseWriter) {
		_, _ = w.Write([]byte(`{"id": 5, "repository": {"full_name": "example/project"}, "head_repository": {"full_name": "evil/x"}, "Head_Repository": {"full_name": "example/project"}}`))
	}}}
	_, err := ask(t.Context(), t, a)
	require.ErrorIs(t, err, artifacts.ErrAnswer)
	assert.ErrorContains(t, err, `"Head_Repository": the name must be "head_repository"`)

	_, err = newClient(t, s, nil).List(t.Context(), "example/other", run.ID, "*")
	require.ErrorIs(t, err, artifacts.ErrNotFound)
}
