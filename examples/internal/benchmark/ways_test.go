//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise"
)

func TestWaysFlags(t *testing.T) {
	o, err := parseFlags(nil)
	require.NoError(t, err)
	assert.Equal(t, []float64{1, 4}, o.waysSizes)
	o, err = parseFlags([]string{"-ways-sizes", "0.25", "-ways-rates", "50,1000", "-ways-registries", "all"})
	require.NoError(t, err)
	assert.Equal(t, []float64{0.25}, o.waysSizes)
	assert.Equal(t, []float64{50, 1000}, o.waysRates)
	assert.Equal(t, []string{"all"}, o.waysRegistries)
	for _, args := range [][]string{{"-ways-sizes", "0"}, {"-ways-sizes", ""}, {"-ways-rates", "NaN"}, {"-ways-rates", "1,x"}, {"-ways-registries", "x"}} {
		_, err := parseFlags(args)
		assert.Error(t, err, args)
	}
}

// exampleWays are runs with rates that no machine has, so that predictions are round numbers.
func exampleWays() *waysRun {
	r := newWayRates()
	r.image = advise.Image{Layers: []int64{950e6, 50e6}}
	r.engines[0] = &advise.Engine{Intake: 1e12, Unpack: 100e6}
	r.engines[50] = r.engines[0]
	r.registries["each"] = &advise.Registry{Connection: 25e6, All: 25e6}
	r.storages[50] = &advise.Storage{ReadOne: 50e6, ReadMany: 50e6, Write: 50e6, Reflink: true}
	r.roots[50] = &advise.Root{Mount: 1, Start: 1}
	w := &waysRun{bench: &bench{options: &options{waysRegistries: []string{"each"}}}, rates: r, rated: []float64{50}, size: 1e9, cells: []*wayCell{
		{registry: "each", way: advise.Pull, finds: cold, real: 42},
		{registry: "each", way: advise.Pull, finds: delta, real: 2},
		{registry: "each", way: advise.Pull, finds: present, real: 0.1},
		{storage: 50, way: advise.LoadImage, finds: cold, real: 30},
		{storage: 50, way: advise.LoadImage, finds: delta, real: 1},
		{storage: 50, way: advise.LoadImage, finds: present, real: 0.2},
		{storage: 50, way: advise.KeepLoaded, finds: present, real: 0.05},
		{storage: 50, way: advise.EngineRoot, finds: cold, real: 4},
	}}
	for _, c := range w.cells {
		c.predicted = w.predicted(*c)
	}
	return w
}

func TestWaysResult(t *testing.T) {
	w, result := exampleWays(), newWaysResult()
	result.add(w)
	cells := map[string]string{}
	for _, row := range result.cells.rows {
		cells[row[1]+", "+row[2]] = row[3] + ": " + row[4] + " " + row[6]
	}
	assert.Equal(t, "25 MB/s per connection: 50 1.19", cells["pull, nothing"])
	assert.Equal(t, "50 MB/s: 30 1", cells["load-image, nothing"])
	assert.Equal(t, "50 MB/s: 2 0.5", cells["engine-root, nothing"])

	advice := map[string][]string{}
	for _, row := range result.advice.rows {
		assert.Equal(t, "25 MB/s per connection, 50 MB/s", row[2])
		advice[row[1]] = row[3:]
	}
	assert.Equal(t, []string{"engine-root", "4", "engine-root", "4", "right"}, advice["each job has an engine of its own"])
	assert.Equal(t, "right", advice["the same without engine-root"][4])
}

// The seconds of a job are the mean of what it finds.
func TestRealJob(t *testing.T) {
	w := exampleWays()
	for _, c := range []struct {
		way           string
		jobsPerEngine float64
		want          float64
	}{
		{advise.Pull, 1, 42},
		{advise.KeepLoaded, 1, 30}, // it begins when the job does
		{advise.EngineRoot, 0, 4},
		{advise.LoadImage, 0, 0.5*1 + 0.5*0.2},
		{advise.Pull, 2, 42./2 + 2./4 + 0.1/4},
		{advise.KeepLoaded, 0, 0.05},
	} {
		got, ok := w.realJob(c.way, "each", 50, advise.Fleet{JobsPerDay: 1, BuildsPerDay: 1, JobsPerEngine: c.jobsPerEngine})
		assert.True(t, ok, c.way)
		assert.InDelta(t, c.want, got, 1e-9, c.way)
	}
	_, ok := w.realJob(advise.DockerLoad, "each", 50, advise.Fleet{JobsPerDay: 1, JobsPerEngine: 1})
	assert.False(t, ok, "it was not run")
}
