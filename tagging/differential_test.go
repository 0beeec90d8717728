package tagging

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// workflowScript holds the workflow's own expansions, as its steps "Generate
// ghrc.io tag" and "Save as tarball" have them, with the inputs read from
// standard input in place of being pasted into the text.
const workflowScript = `
while IFS='|' read -r ecr_image ref_name; do
  ghcr_image="ghcr.io/pytorch/ci-image:${ecr_image##*:}"
  docker_image_tag="${ecr_image#*:}"
  docker_image_tag="${docker_image_tag%-*}"
  if [[ $ref_name =~ "release/" ]]; then
    ref_suffix="release"
  elif [[ $ref_name == "main" ]]; then
    ref_suffix="main"
  else
    ref_suffix=""
  fi
  printf '%s\t%s\t%s\n' "$ghcr_image" "$docker_image_tag" "$ref_suffix"
done
`

type derived struct{ mirror, name, suffix string }

// workflow runs the script over image and branch pairs, all in one bash.
func workflow(t *testing.T, pairs [][2]string) []derived {
	t.Helper()
	var in strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&in, "%s|%s\n", p[0], p[1])
	}
	cmd := exec.Command(testtool.Need(t, "bash"), "-c", workflowScript)
	cmd.Stdin, cmd.Stderr = strings.NewReader(in.String()), os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	require.Len(t, lines, len(pairs))
	results := make([]derived, len(lines))
	for i, line := range lines {
		f := strings.Split(line, "\t")
		require.Len(t, f, 3, line)
		results[i] = derived{f[0], f[1], f[2]}
	}
	return results
}

// same requires that this package derives what the workflow does.
func same(t *testing.T, image, branch string, want derived) {
	t.Helper()
	name, err := Name(image)
	require.NoError(t, err)
	assert.Equal(t, want.name, name, image)
	mirror, err := Mirror(image, "ghcr.io/pytorch/ci-image")
	require.NoError(t, err)
	assert.Equal(t, want.mirror, mirror, image)
	tarball, err := Tarball(image, branch, nil)
	require.NoError(t, err)
	assert.Equal(t, want.name+"_"+want.suffix+".tar", tarball, image)
}

func TestSameAsTheWorkflow(t *testing.T) {
	pairs := [][2]string{
		{ecr + ":pytorch-linux-jammy-rocm-n-py3-" + hash, "main"},
		{ecr + ":pytorch-linux-noble-rocm-n-py3-" + hash, "release/2.9"},
		{ecr + ":pytorch-linux-jammy-rocm-n-py3-benchmarks-" + hash, "main"},
		{"ghcr.io/pytorch/ci-image:a-b", "release/2.9/x"},
		{"ghcr.io/pytorch/ci-image:a-", "main"},
		{"ghcr.io/pytorch/ci-image:a--b", "main"},
		{"ghcr.io/pytorch/ci-image:latest", "main"},
		{"debian:bookworm-slim", "main"},
		{"x:_._-_", "release/"},
	}
	for i, got := range workflow(t, pairs) {
		same(t, pairs[i][0], pairs[i][1], got)
	}
}

func TestSameAsTheWorkflowOnGeneratedReferences(t *testing.T) {
	const count = 5000
	rnd := rand.New(rand.NewPCG(1, 2)) // fixed: a failure can be repeated
	pick := func(alphabet string, most int) string {
		b := make([]byte, 1+rnd.IntN(most))
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	hosts := []string{"", "ghcr.io/", "308535385114.dkr.ecr.us-east-1.amazonaws.com/"}
	branches := []string{"main", "release/2.9", "release/" + pick("abc/-.", 20)}
	var pairs [][2]string
	for len(pairs) < count {
		image := hosts[rnd.IntN(len(hosts))] + pick("abz09-_./", 20) + ":" + pick("aZ09_.--", 40)
		if _, err := Name(image); err != nil {
			continue // not valid: the workflow makes something of it, we do not
		}
		pairs = append(pairs, [2]string{image, branches[rnd.IntN(len(branches))]})
	}
	for i, got := range workflow(t, pairs) {
		same(t, pairs[i][0], pairs[i][1], got)
	}
}

// The workflow's answers that this package does not repeat, one by one: each
// is a defect of the script, so a change here is a change of behaviour.
func TestWhereTheWorkflowIsWrong(t *testing.T) {
	pairs := [][2]string{
		{"localhost:5000/x:name-" + hash, "main"}, // a registry with a port
		{"", "main"},                             // what a failed build leaves behind
		{ecr + ":name-" + hash, "release"},       // its own trigger's branch
		{ecr + ":name-" + hash, "foo/release/x"}, // a substring match
	}
	got := workflow(t, pairs)

	assert.Equal(t, "5000/x:name", got[0].name)
	name, err := Name(pairs[0][0])
	require.NoError(t, err)
	assert.Equal(t, "name", name)

	assert.Equal(t, "ghcr.io/pytorch/ci-image:", got[1].mirror)
	_, err = Mirror("", "ghcr.io/pytorch/ci-image")
	require.ErrorIs(t, err, ErrReference)

	assert.Empty(t, got[2].suffix)
	suffix, err := Suffix("release", nil)
	require.NoError(t, err)
	assert.Equal(t, "release", suffix)

	assert.Equal(t, "release", got[3].suffix)
	_, err = Suffix("foo/release/x", nil)
	require.ErrorIs(t, err, ErrBranch)
}
