//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/dockercache/dockercache/registry/registrytest"
)

// A pair is a mirror and an image's own registry, both with the image.
type pair struct {
	name, title string
	mirror, own func() *registrytest.Throttle
}

// pairs are what decides whether reading from both pays: where the limit is.
var pairs = []pair{
	{"alike", "each registry gives 100 MB/s in all", total(100), total(100)},
	{"slower", "the mirror gives 200 MB/s in all, the own registry 50 MB/s", total(200), total(50)},
	{"connection", "each connection gives 25 MB/s", perConnection, perConnection},
	{"unlimited", "no limit but this machine", func() *registrytest.Throttle { return &registrytest.Throttle{} }, func() *registrytest.Throttle { return &registrytest.Throttle{} }},
}

func total(megabytes int64) func() *registrytest.Throttle {
	return func() *registrytest.Throttle {
		return &registrytest.Throttle{TotalBytesPerSecond: megabytes * 1_000_000, Latency: limitedLatency}
	}
}

func perConnection() *registrytest.Throttle {
	return &registrytest.Throttle{BytesPerSecond: limitedRate, Latency: limitedLatency}
}

const (
	mirrorAlone = "mirror alone"
	allSources  = "-all-sources"
)

// measureSources pulls the giant layer from each pair, with -all-sources and
// without, in turns.
func (b *bench) measureSources(ctx context.Context) error {
	works := b.options.selected()
	giant := slices.IndexFunc(works, func(w work) bool { return w.name == "giant" })
	if !b.options.sources || giant < 0 {
		return nil
	}
	base := b.tools[0].(*commandTool)
	for _, p := range pairs {
		mirror := b.server.hosts[p.name+" mirror"] + "/bench/image"
		alone, both := &row{work: works[giant], link: p.name, tool: mirrorAlone}, &row{work: works[giant], link: p.name, tool: allSources}
		b.sources = append(b.sources, alone, both)
		for range b.options.repeat {
			for _, r := range []*row{alone, both} {
				t := &commandTool{r.tool, "", base.env, func(ref, host, dir string) []string {
					args := base.args(ref, host, dir)
					flags := []string{"-mirror", mirror}
					if r.tool == allSources {
						flags = append(flags, "-all-sources")
					}
					return slices.Insert(args, 1, flags...)
				}}
				u, err := b.pull(ctx, t, r.work, p.name+" own")
				if err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "%s, %s: %.2f s\n", p.title, r.tool, u.Wall.Seconds())
				r.usages = append(r.usages, u)
			}
		}
	}
	return nil
}

// printSources writes the table of the pairs.
func (b *bench) printSources(w io.Writer) {
	if len(b.sources) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### (c) Two registries that both have the image, %s\n\n", b.sources[0].work)
	fmt.Fprintf(w, "| limit | runs | %s, wall, s | `%s`, wall, s | CPU, s |\n|---|--:|--:|--:|--:|\n", mirrorAlone, allSources)
	for i, p := range pairs {
		alone, both := b.sources[2*i], b.sources[2*i+1]
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s |\n", p.title, len(both.usages), alone.cell(wall, alone), both.cell(wall, alone), both.cell(cpu, alone))
	}
}
