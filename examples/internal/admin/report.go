package admin

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/plot"
	"github.com/dockercache/dockercache/examples/internal/report"
)

// ReportOptions of [Report].
type ReportOptions struct {
	Since time.Time // the zero time: all
	Plot  string    // the file of a picture; "" for none
}

// shown is how many images, hosts or days the text has.
const shown = 20

// Report prints what was recorded in a directory.
func Report(dir string, o *ReportOptions, out *cli.Output) error {
	records, skipped, err := history.Read(dir, time.Time{})
	if err != nil {
		return err
	}
	if n := skipped.Lines(); n > 0 || skipped.Files > 0 {
		out.Remind(fmt.Sprintf("not read of the log: %s that are no records of this version (%d invalid, %d of another version, %d of a time to come, %d too long), %s",
			english.Plural(n, "line", ""), skipped.Invalid, skipped.OtherVersion, skipped.Future, skipped.TooLong, english.Plural(skipped.Files, "file", "")))
	}
	r := history.Summarize(records, &history.SummaryOptions{Since: o.Since})
	if r.All.Records == 0 {
		since := ""
		if !o.Since.IsZero() && len(records) > 0 {
			since = fmt.Sprintf(" since %s; the last of %s is of %s", cli.Stamp(o.Since), english.Plural(len(records), "record", ""), cli.Stamp(records[len(records)-1].Time))
		}
		out.Remind(fmt.Sprintf("no records in %s%s: docker-cache and load-image of this version record what they do there, unless -history=false or they may not write there", cli.Printable(dir), since))
	}
	for _, by := range groupsOf(r) {
		for i := range by.uses {
			out.Print(newReported(by.name, &by.uses[i]), "")
		}
	}
	if r.All.Records > 0 {
		out.Print(nil, reportText(r))
	}
	if o.Plot != "" {
		if err := os.WriteFile(o.Plot, plotReport(r), 0o666); err != nil {
			return fmt.Errorf("-plot: %w", err)
		}
	}
	return nil
}

type grouped struct {
	name string
	uses []history.Use
}

func groupsOf(r *history.Report) []grouped {
	return []grouped{{"all", []history.Use{r.All}}, {"image", r.Images}, {"host", r.Hosts}, {"day", r.Days}}
}

// newReported makes the record of a use.
func newReported(by string, u *history.Use) *reported {
	r := &reported{
		By: by, Name: u.Name, Records: u.Records, First: cli.Stamp(u.First), Last: cli.Stamp(u.Last), Loads: u.Loads, Hits: u.Hits,
		BytesDownloaded: u.BytesFetched, BytesReused: u.BytesReused, BytesResumed: u.BytesResumed, BytesStreamed: u.BytesStreamed,
		Compared: u.Saving.Loads, Unknown: u.Saving.Unknown, Seconds: toMillis(u.Saving.Seconds),
		PullSecondsLeast: toMillis(u.Saving.PullLeast), PullSecondsMost: toMillis(u.Saving.PullMost), SavedSecondsLeast: toMillis(u.Saving.Least()), SavedSecondsMost: toMillis(u.Saving.Most()),
		RatesOf: strings.Join(u.Saving.RateOf, " "), Ways: []reportedWay{}, Origins: []reportedOrigin{}, Slowest: []reportedPhase{},
	}
	for _, w := range u.Ways {
		r.Ways = append(r.Ways, reportedWay{string(w.Kind), w.Outcome, w.Count, toMillis(w.Median), toMillis(w.Mean)})
	}
	for _, o := range u.Origins {
		r.Origins = append(r.Origins, reportedOrigin{o.Name, o.Bytes})
	}
	for _, p := range u.Phases {
		r.Slowest = append(r.Slowest, reportedPhase{string(p.Kind), string(p.Phase), p.Count, toMillis(p.Seconds), toMillis(p.Median)})
	}
	return r
}

// toMillis rounds seconds to the millisecond.
func toMillis(seconds float64) float64 { return math.Round(seconds*1000) / 1000 }

// reportText is a report for people.
func reportText(r *history.Report) string {
	all := &r.All
	text := fmt.Sprintf("%s, %s to %s\n\n", english.Plural(all.Records, "record", ""), cli.Stamp(all.First), cli.Stamp(all.Last))
	text += table(func(row func(string, ...any)) {
		row("DONE\tCOUNT\tMEDIAN\tMEAN\tLONGEST PHASES, IN THE MEAN")
		for _, w := range all.Ways {
			row("%s %s\t%d\t%s\t%s\t%s", w.Kind, w.Outcome, w.Count, seconds(w.Median), seconds(w.Mean), longest(w.Phases))
		}
	})
	var from []string
	for _, o := range all.Origins[:min(len(all.Origins), 5)] {
		from = append(from, fmt.Sprintf("%s from %s", cli.Bytes(o.Bytes), cli.Printable(o.Name)))
	}
	if len(all.Origins) > 5 {
		from = append(from, fmt.Sprintf("the rest from %d others", len(all.Origins)-5))
	}
	fetched := cli.Bytes(all.BytesFetched) + " downloaded"
	if len(from) > 0 {
		fetched += " (" + strings.Join(from, ", ") + ")"
	}
	text += fmt.Sprintf("\n%s, %s reused, %s sent to engines\n", fetched, cli.Bytes(all.BytesReused), cli.Bytes(all.BytesStreamed))
	if all.Loads > 0 {
		text += saving(&all.Saving) + "\n"
	}
	for _, by := range groupsOf(r)[1:] {
		text += "\n" + table(func(row func(string, ...any)) {
			row("%s\tLOADS\tHITS\tPRESENT\tDELTA\tCOLD\tMISSING\tFAILED\tSTOCKS\tDOWNLOADED\tSAVED", strings.ToUpper(by.name))
			for i := range by.uses {
				u := &by.uses[i]
				if by.name == "day" && i < len(by.uses)-shown || by.name != "day" && i >= shown {
					continue
				}
				hits := "-"
				if u.Loads > 0 {
					hits = fmt.Sprintf("%.0f %%", 100*float64(u.Hits)/float64(u.Loads))
				}
				stocks := 0
				for _, w := range u.Ways {
					if w.Kind == history.Stock {
						stocks += w.Count
					}
				}
				load := func(outcome string) int { return countOf(u, history.Load, outcome) }
				row("%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s", cli.Printable(dash(u.Name)), u.Loads, hits, load(history.Present), load(history.Delta), load(history.Loaded), load(history.Missing), load(history.Failed),
					stocks, cli.Bytes(u.BytesFetched), saved(&u.Saving))
			}
		})
		if n := len(by.uses) - shown; n > 0 {
			text += fmt.Sprintf("and %d more; -json has all\n", n)
		}
	}
	return text
}

func dash(name string) string {
	if name == "" {
		return "-"
	}
	return name
}

func countOf(u *history.Use, kind history.Kind, outcome string) int {
	for _, w := range u.Ways {
		if w.Kind == kind && w.Outcome == outcome {
			return w.Count
		}
	}
	return 0
}

// longest names the three phases that take the most time.
func longest(phases map[timing.Phase]float64) string {
	names := make([]timing.Phase, 0, len(phases))
	for p := range phases {
		names = append(names, p)
	}
	slices.SortFunc(names, func(a, b timing.Phase) int {
		if phases[a] != phases[b] {
			if phases[a] > phases[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(string(a), string(b))
	})
	var text []string
	for _, p := range names[:min(len(names), 3)] {
		text = append(text, string(p)+" "+seconds(phases[p]))
	}
	return strings.Join(text, ", ")
}

// saving says what loads saved.
func saving(s *history.Saving) string {
	if s.Loads == 0 {
		return "saved against plain pulls: unknown, as nothing is recorded to compare with: stock an image from a registry with docker-cache"
	}
	text := fmt.Sprintf("saved against plain pulls: %s, of %s that took %s", saved(s), english.Plural(s.Loads, "load", ""), span(s.Seconds))
	if len(s.RateOf) > 0 {
		text += ", by the rates of " + cli.Printable(strings.Join(s.RateOf, ", "))
	}
	if s.Unknown > 0 {
		text += fmt.Sprintf("; unknown of %d more", s.Unknown)
	}
	return text
}

// saved is how much time was saved, for people.
func saved(s *history.Saving) string {
	switch least, most := span(s.Least()), span(s.Most()); {
	case s.Loads == 0 && s.Unknown == 0:
		return "-"
	case s.Loads == 0:
		return "unknown"
	case least == most:
		return least
	default:
		return least + " to " + most
	}
}

// seconds are those of one piece of work.
func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }

// span is a time for people: seconds, or minutes or hours where they are many.
func span(s float64) string {
	sign := ""
	if s < 0 {
		sign, s = "-", -s
	}
	switch {
	case s < 0.05:
		return "0 s"
	case s < 120:
		return fmt.Sprintf("%s%.1f s", sign, s)
	case s < 2*3600:
		return fmt.Sprintf("%s%.1f min", sign, s/60)
	}
	return fmt.Sprintf("%s%.1f h", sign, s/3600)
}

// plotReport is a picture of where the time goes: a bar for each way, in the mean.
func plotReport(r *history.Report) []byte {
	bars := plot.Bars{Title: "What was done, and what each second was spent on (mean)", Unit: "s"}
	for _, p := range report.PhaseNames {
		bars.Order = append(bars.Order, string(p))
	}
	for _, w := range r.All.Ways {
		row := plot.Row{Label: string(w.Kind) + " " + w.Outcome, Note: english.Plural(w.Count, "time", "")}
		rest := w.Mean
		for _, p := range report.PhaseNames {
			if s, ok := w.Phases[p]; ok {
				row.Parts = append(row.Parts, plot.Part{Name: string(p), Value: s})
				rest -= s
			}
		}
		row.Parts = append(row.Parts, plot.Part{Name: "other", Value: max(rest, 0)})
		bars.Rows = append(bars.Rows, row)
	}
	return bars.SVG()
}
