package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// A Source is what one source of an image gave, in records.
type Source struct {
	Repository       string  `json:"repository"`         // "" if the source has no name
	Bytes            int64   `json:"bytes"`              // that came
	BytesDuplicate   int64   `json:"bytes_duplicate"`    // of these, that another connection had brought first
	BytesPerSecond   int64   `json:"bytes_per_second"`   // while a connection was open
	Requests         int     `json:"requests"`           // for ranges
	Refused          int     `json:"refused"`            // of these, with a wish to wait
	FirstByteSeconds float64 `json:"first_byte_seconds"` // of a range, in the median
	Seconds          float64 `json:"seconds"`            // with at least one connection open
	ConnectionsMean  float64 `json:"connections_mean"`   // in that time
	ConnectionsMost  int     `json:"connections_most"`
}

// Sources makes the records of what sources gave.
func Sources(all []tarball.SourceUse) []Source {
	records := make([]Source, len(all))
	for i, u := range all {
		records[i] = Source{
			Repository: u.Name, Bytes: u.Bytes, BytesDuplicate: u.Duplicate, Requests: u.Requests, Refused: u.Refused,
			FirstByteSeconds: round(u.FirstByte), Seconds: round(u.Busy), ConnectionsMost: u.Connections,
		}
		if u.Busy > 0 {
			records[i].BytesPerSecond = int64(float64(u.Bytes) / u.Busy.Seconds())
			records[i].ConnectionsMean = math.Round(10*u.Connected.Seconds()/u.Busy.Seconds()) / 10
		}
	}
	return records
}

// round returns a duration in seconds, to the millisecond.
func round(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// LogSources logs what each source of a tarball gave.
func LogSources(out *cli.Output, name string, all []Source) {
	for _, s := range all {
		out.Log.Info("read from a source", "tarball", name, "source", cmp.Or(s.Repository, "?"), "bytes", cli.Bytes(s.Bytes), "rate", cli.Bytes(s.BytesPerSecond)+"/s",
			"seconds", s.Seconds, "first_byte", fmt.Sprint(s.FirstByteSeconds)+"s", "requests", s.Requests, "refused", s.Refused,
			"duplicate", cli.Bytes(s.BytesDuplicate), "connections", s.ConnectionsMean, "most", s.ConnectionsMost)
	}
}

// summarySources returns what a summary shows of sources: without verbose only where it
// is not what anybody expects, which is one that gives all and refuses nothing.
func summarySources(all []Source, verbose bool) (rows []workflow.SummarySource) {
	asked := 0
	for _, s := range all {
		if s.Requests > 0 {
			asked++
		}
	}
	odd := func(s Source) bool { return s.Refused > 0 || s.BytesDuplicate > 0 }
	if !verbose && asked < 2 && !slices.ContainsFunc(all, odd) {
		return nil
	}
	for _, s := range all {
		rows = append(rows, workflow.SummarySource{
			Name: s.Repository, Bytes: s.Bytes, Duplicate: s.BytesDuplicate, Rate: s.BytesPerSecond, Requests: s.Requests, Refused: s.Refused,
			FirstByte: time.Duration(s.FirstByteSeconds * float64(time.Second)), Connections: s.ConnectionsMean, MostConnections: s.ConnectionsMost,
		})
	}
	return rows
}
