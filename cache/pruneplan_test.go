package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

// pruneNow is when the plans of these tests are made.
var pruneNow = time.Unix(1_800_000_000, 0)

// unused is a tarball of 100 bytes that was not used for so many days, nor written.
func unused(name string, days int) Entry {
	at := pruneNow.Add(-time.Duration(days) * 24 * time.Hour)
	return Entry{Name: name, Group: DefaultGroup(name), Allocated: 100, Written: at, LastUsed: at}
}

func ofRun(e Entry, id int64) Entry { e.Run = tarball.Run{ID: id}; return e }

func inGroup(e Entry, group string) Entry { e.Group = group; return e }

func planText(plan []PruneAction) (lines []string) {
	for _, p := range plan {
		lines = append(lines, fmt.Sprintf("%s %s %s", p.Entry.Name, p.Why, p.Kept))
	}
	return lines
}

func TestPlanPrune(t *testing.T) {
	const day = 24 * time.Hour
	// One name each, so that with Newest only the limits decide.
	four := []Entry{unused("b_main.tar", 2), unused("d_main.tar", 4), unused("a_main.tar", 1), unused("c_main.tar", 3)}
	future := unused("f_main.tar", -1000)
	// Two branches of one image, and of another.
	branches := []Entry{unused("a_main.tar", 9), unused("a_release.tar", 8), unused("b_main.tar", 7), unused("b_release.tar", 6)}

	for name, c := range map[string]struct {
		entries []Entry
		o       PruneOptions
		inUse   []string
		want    []string
	}{
		"no limit":                        {four, PruneOptions{RemoveNewest: true}, nil, nil},
		"count, the last used goes first": {four, PruneOptions{Count: 2, RemoveNewest: true}, nil, []string{"d_main.tar count ", "c_main.tar count "}},
		"count that is kept":              {four, PruneOptions{Count: 4, RemoveNewest: true}, nil, nil},
		"age":                             {four, PruneOptions{MaxAge: 3*day - 1, RemoveNewest: true}, nil, []string{"d_main.tar age ", "c_main.tar age "}},
		"age, to the moment":              {four, PruneOptions{MaxAge: 3 * day, RemoveNewest: true}, nil, []string{"d_main.tar age "}},
		"bytes":                           {four, PruneOptions{MaxBytes: 300, RemoveNewest: true}, nil, []string{"d_main.tar bytes "}},
		"bytes, to the byte":              {four, PruneOptions{MaxBytes: 400, RemoveNewest: true}, nil, nil},
		"low water":                       {four, PruneOptions{MaxBytes: 399, LowWater: 150, RemoveNewest: true}, nil, []string{"d_main.tar bytes ", "c_main.tar bytes ", "b_main.tar bytes "}},
		"low water before it is needed":   {four, PruneOptions{MaxBytes: 400, LowWater: 150, RemoveNewest: true}, nil, nil},
		"age makes room for the others":   {four, PruneOptions{MaxAge: 3*day - 1, Count: 2, MaxBytes: 200, RemoveNewest: true}, nil, []string{"d_main.tar age ", "c_main.tar age "}},
		"all limits":                      {four, PruneOptions{MaxAge: 3 * day, Count: 2, MaxBytes: 199, RemoveNewest: true}, nil, []string{"d_main.tar age ", "c_main.tar count ", "b_main.tar bytes "}},
		"in use, another in its place":    {four, PruneOptions{Count: 2, RemoveNewest: true}, []string{"d_main.tar"}, []string{"d_main.tar count in-use", "c_main.tar count ", "b_main.tar count "}},
		"in use and too old":              {four, PruneOptions{MaxAge: 3 * day, RemoveNewest: true}, []string{"d_main.tar"}, []string{"d_main.tar age in-use"}},
		"all in use":                      {four[:2], PruneOptions{Count: 1, RemoveNewest: true}, []string{"d_main.tar", "b_main.tar"}, []string{"d_main.tar count in-use", "b_main.tar count in-use"}},
		"the future is not old":           {[]Entry{future}, PruneOptions{MaxAge: 1, RemoveNewest: true}, nil, nil},
		"the newest stays":                {branches, PruneOptions{MaxAge: day}, nil, []string{"a_main.tar age ", "a_release.tar age newest", "b_main.tar age ", "b_release.tar age newest"}},
		"the newest stays, for count":     {branches, PruneOptions{Count: 1}, nil, []string{"a_main.tar count ", "a_release.tar count newest", "b_main.tar count ", "b_release.tar count newest"}},
		"the newest may go":               {branches, PruneOptions{Count: 1, RemoveNewest: true}, nil, []string{"a_main.tar count ", "a_release.tar count ", "b_main.tar count "}},
		"used is not newest": {
			[]Entry{{Name: "a_main.tar", Group: "a", LastUsed: pruneNow, Written: pruneNow.Add(-9 * day)}, unused("a_release.tar", 8)},
			PruneOptions{Count: 1}, nil, []string{"a_release.tar count newest", "a_main.tar count "}},
		"the same time, the order of names": {
			[]Entry{unused("b_main.tar", 1), unused("a_main.tar", 1), unused("c_main.tar", 1)},
			PruneOptions{Count: 1, RemoveNewest: true}, nil, []string{"a_main.tar count ", "b_main.tar count "}},
		"groups, whatever the names say": {
			[]Entry{inGroup(unused("a_hotfix_1.tar", 3), "a"), inGroup(unused("a_hotfix_2.tar", 2), "a"), unused("a_main.tar", 1), inGroup(unused("a_x.tar", 4), "b")},
			PruneOptions{Count: 1}, nil, []string{"a_x.tar count newest", "a_hotfix_1.tar count ", "a_hotfix_2.tar count ", "a_main.tar count newest"}},
		"none": {nil, PruneOptions{Count: 1, MaxAge: 1, MaxBytes: 1}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, c.o.Check())
			inUse := map[string]bool{}
			for _, name := range c.inUse {
				inUse[name] = true
			}
			assert.Equal(t, c.want, planText(PlanPrune(c.entries, &c.o, inUse, pruneNow)))
		})
	}
}

// What is removed stays in the plan, however many turn out to be in use.
func TestPlanPruneOnlyGrows(t *testing.T) {
	var entries []Entry
	for i := range 12 {
		entries = append(entries, ofRun(unused(fmt.Sprintf("%c_%d.tar", 'a'+i%3, i), 20-i), int64(i*5%7)))
	}
	for _, o := range []PruneOptions{{Count: 5}, {MaxBytes: 900, LowWater: 500}, {MaxAge: 15 * 24 * time.Hour, Count: 7, MaxBytes: 600}} {
		inUse := map[string]bool{}
		before := map[string]bool{}
		for {
			plan := PlanPrune(entries, &o, inUse, pruneNow)
			now := map[string]bool{}
			next := ""
			for _, p := range plan {
				if p.Kept == "" {
					now[p.Entry.Name] = true
					if !before[p.Entry.Name] {
						next = p.Entry.Name
					}
				}
			}
			for name := range before {
				assert.True(t, now[name] || inUse[name], "%s came back", name)
			}
			if next == "" {
				break
			}
			inUse[next] = true
			delete(now, next)
			before = now
		}
	}
}

func TestNewestOfGroups(t *testing.T) {
	for name, c := range map[string]struct {
		entries []Entry
		want    []string
	}{
		"by run, whatever the times say": {[]Entry{ofRun(unused("a_main.tar", 9), 7), ofRun(unused("a_release.tar", 1), 6)}, []string{"a_main.tar"}},
		"by time without runs":           {[]Entry{unused("a_main.tar", 9), unused("a_release.tar", 1)}, []string{"a_release.tar"}},
		"both where one is not known":    {[]Entry{ofRun(unused("a_main.tar", 9), 7), unused("a_release.tar", 1), unused("a_x.tar", 2)}, []string{"a_main.tar", "a_release.tar"}},
		"the same run, by time":          {[]Entry{ofRun(unused("a_main.tar", 2), 7), ofRun(unused("a_release.tar", 1), 7), ofRun(unused("a_x.tar", 3), 7)}, []string{"a_release.tar"}},
		"the attempt counts": {[]Entry{
			{Name: "a_main.tar", Group: "a", Run: tarball.Run{ID: 7, Attempt: 2}, Written: pruneNow.Add(-time.Hour)}, {Name: "a_release.tar", Group: "a", Run: tarball.Run{ID: 7, Attempt: 1}, Written: pruneNow},
		}, []string{"a_main.tar"}},
		"the same time": {[]Entry{unused("a_x.tar", 1), unused("a_main.tar", 1)}, []string{"a_x.tar"}},
		"several names": {[]Entry{unused("a_b_main.tar", 1), unused("a_main.tar", 1), unused("a-b_main.tar", 1), unused("plain.tar", 1)},
			[]string{"a_b_main.tar", "a_main.tar", "a-b_main.tar", "plain.tar"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]bool{}
			for _, w := range c.want {
				want[w] = true
			}
			assert.Equal(t, want, newestOfGroups(c.entries))
		})
	}
}

func TestNameGroup(t *testing.T) {
	for tarball, want := range map[string]string{
		"x_main.tar": "x", "x_release.tar": "x", "x_y_main.tar": "x_y", "x.tar": "x", "_main.tar": "_main", "x_.tar": "x", "x_main.tar.tar": "x",
	} {
		assert.Equal(t, want, DefaultGroup(tarball), tarball)
	}
}
