package workflow_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/workflow"
)

func rows() []workflow.SummaryRow {
	start := time.Date(2026, 11, 24, 23, 59, 50, 0, time.FixedZone("", 3600))
	return []workflow.SummaryRow{
		{Image: "ecr.example/ci-image:jammy-2f5e", Outcome: "stocked", Source: "ghcr.io/x:jammy", Size: 20 << 30, Downloaded: 13 << 30, Reused: 5 << 30, Resumed: 2 << 30, Start: start.Add(15 * time.Second), Duration: 150 * time.Second},
		{Image: "ecr.example/ci-image:noble-2f5e", Outcome: "unchanged", Source: "ghcr.io/x:noble", Size: 1 << 20, Start: start, Duration: 300 * time.Millisecond},
		{Image: "ecr.example/ci-image:bad-2f5e", Outcome: "failed", Start: start, Duration: 5 * time.Second, Error: "not found | really", Advice: "check | it"},
		{Image: "never-begun", Outcome: "failed"},
	}
}

func TestSummary(t *testing.T) {
	assert.Equal(t, `### Container images: 1 stocked, 1 unchanged, 2 failed

| image | outcome | source | size | downloaded | reused | kept | seconds | rate |
|---|---|---|--:|--:|--:|--:|--:|--:|
| ecr.example/ci-image&#58;jammy-2f5e | ✅ stocked | ghcr.io/x&#58;jammy | 20 GiB | 13 GiB | 5.0 GiB | 2.0 GiB | 150.0 | 89 MiB/s |
| ecr.example/ci-image&#58;noble-2f5e | ➖ unchanged | ghcr.io/x&#58;noble | 1.0 MiB | 0 B | 0 B | 0 B | 0.3 |  |
| ecr.example/ci-image&#58;bad-2f5e | ❌ failed | – | 0 B | 0 B | 0 B | 0 B | 5.0 |  |
| never-begun | ❌ failed | – | 0 B | 0 B | 0 B | 0 B | 0.0 |  |

- ecr.example/ci-image&#58;bad-2f5e: not found &#124; really
  - What to do: check &#124; it

`+"```mermaid"+`
gantt
    title Time since the first image was begun
    dateFormat YYYY-MM-DD HH:mm:ss
    axisFormat %H:%M:%S
    1 ci-image jammy-2f5e :active, 2000-01-01 00:00:15, 2000-01-01 00:02:45
    2 ci-image noble-2f5e :done, 2000-01-01 00:00:00, 2000-01-01 00:00:01
    3 ci-image bad-2f5e :crit, 2000-01-01 00:00:00, 2000-01-01 00:00:05
`+"```\n", workflow.Summary(rows(), nil, workflow.MaxSummary))
	assert.NotContains(t, workflow.Summary(rows()[3:], nil, workflow.MaxSummary), "mermaid", "nothing to draw")
}

// What sources gave is in a table of its own, which does not crowd the images out.
func TestSummaryOfSources(t *testing.T) {
	all := rows()[:2]
	all[0].Sources = []workflow.SummarySource{
		{Name: "ghcr.io/x", Bytes: 10 << 30, Duplicate: 100 << 20, Rate: 70 << 20, Requests: 900, Refused: 3, FirstByte: 250 * time.Millisecond, Connections: 14.25, MostConnections: 24},
		{Bytes: 3 << 30, Rate: 20 << 20, Requests: 200, Connections: 4, MostConnections: 4},
	}
	const table = `
| image | read from | bytes | rate | first byte | requests | refused | twice | connections |
|---|---|--:|--:|--:|--:|--:|--:|--:|
| ecr.example/ci-image&#58;jammy-2f5e | ghcr.io/x | 10 GiB | 70 MiB/s | 0.25 s | 900 | 3 | 100 MiB | 14.2, at most 24 |
| ecr.example/ci-image&#58;jammy-2f5e | – | 3.0 GiB | 20 MiB/s | 0.00 s | 200 | 0 | 0 B | 4.0, at most 4 |
`
	assert.Contains(t, workflow.Summary(all, nil, workflow.MaxSummary), table)
	without := workflow.Summary(rows()[:2], nil, workflow.MaxSummary)
	assert.NotContains(t, without, "read from")
	for limit := 0; limit < 3000; limit += 7 {
		text := workflow.Summary(all, nil, limit)
		require.LessOrEqual(t, len(text), limit)
		if strings.Contains(text, "read from") {
			require.Contains(t, text, "noble-2f5e | ➖ unchanged", "images go first")
		}
	}
	all[0].Sources[0].Name = "a|b<script>"
	assert.NotContains(t, workflow.Summary(all, nil, workflow.MaxSummary), "<script>")
}

// Where the time went is in a table and in the chart: a bar for each phase.
func TestSummaryOfPhases(t *testing.T) {
	all := rows()
	all[0].Phases = []workflow.SummaryPhase{{"resolve", 400 * time.Millisecond}, {"fetch", 120 * time.Second}, {"publish", 29600 * time.Millisecond}}
	all[1].Phases = []workflow.SummaryPhase{{"resolve", 250 * time.Millisecond}, {"lo|ok", 50 * time.Millisecond}}
	notes := []string{"Loads of the last week took 1 h in place of 3 h.", "<b>"}
	text := workflow.Summary(all, notes, workflow.MaxSummary)
	assert.Contains(t, text, `
- Loads of the last week took 1 h in place of 3 h.
- &#60;b&#62;

#### Where the time went

| image | seconds | resolve | fetch | publish | lo&#124;ok |
|---|--:|--:|--:|--:|--:|
| ecr.example/ci-image&#58;jammy-2f5e | 150.0 | 0.4 | 120.0 | 29.6 | |
| ecr.example/ci-image&#58;noble-2f5e | 0.3 | 0.2 | | | 0.1 |
`)
	assert.Contains(t, text, `
    section 1 ci-image jammy-2f5e
    1.2 fetch :active, 2000-01-01 00:00:15, 2000-01-01 00:02:15
    1.3 publish :active, 2000-01-01 00:02:15, 2000-01-01 00:02:45
    section 2 ci-image noble-2f5e
    2 ci-image noble-2f5e :done, 2000-01-01 00:00:00, 2000-01-01 00:00:01
`)
	for limit := 0; limit < 4000; limit += 7 {
		text := workflow.Summary(all, notes, limit)
		require.LessOrEqual(t, len(text), limit)
		if strings.Contains(text, "Where the time went") {
			require.Contains(t, text, "noble-2f5e | ➖ unchanged", "images go first")
		}
	}
	for i := range 100 {
		all[0].Phases = append(all[0].Phases, workflow.SummaryPhase{Name: fmt.Sprint("p", i), Duration: time.Minute})
	}
	assert.NotContains(t, workflow.Summary(all, nil, workflow.MaxSummary), "p99 :", "a chart of so many bars is illegible")
}

// Names and errors are text, not Markdown, HTML or Mermaid.
func TestSummaryShowsText(t *testing.T) {
	const evil = "x/a|b\n| c | `d` <script>e</script> [f](https://g) ![h](i) **j** #k; l: m, n %% o \"p\" &amp; \\ ``` $q$ @r ~~s~~\u2028t\x1b[31m"
	start := time.Now()
	text := workflow.Summary([]workflow.SummaryRow{{Image: evil, Outcome: evil, Source: evil, Error: evil, Advice: evil, Start: start}, {Image: "section:y", Start: start}}, nil, workflow.MaxSummary)
	table, chart, found := strings.Cut(text, "```mermaid\n")
	require.True(t, found)
	for line := range strings.SplitSeq(table, "\n") {
		if strings.Contains(line, "script") {
			assert.True(t, strings.Count(line, "|") == 10 || strings.HasPrefix(line, "- x/a") || strings.HasPrefix(line, "  - What to do: x/a") || strings.HasPrefix(line, "### Container images: 1 x/a"), line)
			shown := strings.TrimPrefix(strings.TrimPrefix(regexp.MustCompile(`&#\d+;`).ReplaceAllString(line, ""), "- x/a"), "### ")
			assert.NotRegexp(t, "[`<>\\[\\]*_#\\\\$@~\"&!]", shown)
		}
	}
	assert.Equal(t, 4, strings.Count("\n"+table, "\n|"), "head and two rows")
	lines := strings.Split(strings.TrimSuffix(chart, "```\n"), "\n")
	require.Len(t, lines, 7, "four of the chart's head, two bars, and the end")
	for _, bar := range lines[4:6] {
		assert.Regexp(t, `^    \d [A-Za-z0-9 ._-]+ :(crit, |active, |done, |)2000-01-01 \d\d:\d\d:\d\d, 2000-01-01 \d\d:\d\d:\d\d$`, bar)
	}
	assert.Regexp(t, `^    2 section y :`, lines[5])
}

// The runner shows nothing of a summary that is too large.
func TestSummaryIsBounded(t *testing.T) {
	var many []workflow.SummaryRow
	for i := range 4000 {
		many = append(many, workflow.SummaryRow{Image: fmt.Sprintf("image-%d", i), Outcome: "failed", Error: strings.Repeat("|", 600), Start: time.Unix(int64(i), 0)})
	}
	full := workflow.Summary(many, nil, workflow.MaxSummary)
	assert.Less(t, len(full), workflow.MaxSummary)
	assert.Greater(t, len(full), workflow.MaxSummary*9/10)
	assert.Regexp(t, `\n\d+ of 4000 images are left out here\.\n`, full)
	for limit := 0; limit < 5000; limit += 7 {
		require.LessOrEqual(t, len(workflow.Summary(many[:3], nil, limit)), limit)
	}

	path := filepath.Join(t.TempDir(), "summary")
	require.NoError(t, os.WriteFile(path, []byte("# before"), 0o644))
	require.NoError(t, workflow.AppendSummary(path, rows(), nil))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "# before\n"+workflow.Summary(rows(), nil, workflow.MaxSummary), string(content))
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), workflow.MaxSummary/2), 0o644))
	require.NoError(t, workflow.AppendSummary(path, many, nil))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, info.Size(), int64(workflow.MaxSummary))
	require.NoError(t, os.Remove(path))
	require.NoError(t, workflow.AppendSummary(path, rows(), nil))
}
