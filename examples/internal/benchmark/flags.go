//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

type options struct {
	dir           string
	scale         float64
	ratio         float64
	repeat        int
	repeatLimited int
	repeatDocker  int
	works         []string
	tools         []string
	links         []string
	dockerLinks   []string
	kill          bool
	sources       bool
	refresh       bool
	loads         bool
	loadDir       string
	loadDockerd   string
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "/dev/shm", "the `DIR`ectory for images and results; best in memory, with 8 GiB to spare; what is made there is removed")
	f.Float64Var(&o.scale, "scale", 1, "makes every layer `FACTOR` times as large")
	f.Float64Var(&o.ratio, "ratio", 1, "how many times as large as the layers the files in them are; real images have 2.5 and more")
	f.IntVar(&o.repeat, "repeat", 3, "how often each program does each work, `N`")
	f.IntVar(&o.repeatLimited, "repeat-limited", 0, "the same for the limited connections, where a program that reads one layer after the other needs minutes (default: as -repeat)")
	f.IntVar(&o.repeatDocker, "repeat-docker", 1, "the same for docker, which is slow")
	dockerLinks := f.String("docker-links", "straight,limited", "`LIST` of links that docker is measured over")
	works := f.String("works", "giant,big,small", "`LIST` of works: giant, big, small")
	links := f.String("links", "straight,limited", "`LIST` of links to the registry, in the order to measure: straight, limited")
	tools := f.String("tools", strings.Join(toolNames, ","), "`LIST` of programs; one that is not installed is left out")
	f.BoolVar(&o.kill, "kill", true, "kill docker-cache at 90 % of the giant layer and run it again")
	f.BoolVar(&o.sources, "sources", true, "pull the giant layer from two registries, with -all-sources and without")
	f.BoolVar(&o.refresh, "refresh", true, "refresh an image that is there, on XFS, btrfs and ext4 where they can be mounted")
	f.BoolVar(&o.loads, "loads", true, "load tarballs into a Docker Engine, if docker is among the programs")
	f.StringVar(&o.loadDir, "load-dir", os.TempDir(), "the `DIR`ectory for those tarballs and the engine's images, on a disk as in real use, with 10 GiB to spare; what is made there is removed")
	f.StringVar(&o.loadDockerd, "load-dockerd", dockerd, "for loads, the `PROGRAM` of a Docker Engine from 28 on, to measure it with containerd's store")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.scale <= 0 || o.ratio < 1 || o.ratio > 4 || o.repeat < 1 || o.repeatLimited < 0 || o.repeatDocker < 0 {
		return nil, errors.New("-scale and the repetitions must be positive, -ratio from 1 to 4")
	}
	if o.repeatLimited == 0 {
		o.repeatLimited = o.repeat
	}
	o.works, o.links, o.tools = strings.Split(*works, ","), strings.Split(*links, ","), strings.Split(*tools, ",")
	o.dockerLinks = strings.Split(*dockerLinks, ",")
	for _, check := range []struct{ have, known []string }{{o.works, workNames()}, {o.links, []string{straight, limited}}, {o.dockerLinks, []string{straight, limited}}, {o.tools, toolNames}} {
		for _, name := range check.have {
			if !slices.Contains(check.known, name) {
				return nil, fmt.Errorf("unknown %q, want some of %s", name, strings.Join(check.known, ", "))
			}
		}
	}
	if !slices.Contains(o.tools, ours) {
		return nil, fmt.Errorf("%s must be among the programs: the others are measured by it", ours)
	}
	return o, nil
}
