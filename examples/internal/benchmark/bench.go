//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// bench is one run of the benchmark.
type bench struct {
	options *options
	scratch string
	server  *server
	tools   []tool
	rows    []*row
	kill    *killed // nil if that was not asked for
	sources []*row  // of two registries, see pairs
	refresh *refresh
	loads   *loads
}

// row is what a tool needed for a work over a link, run by run.
type row struct {
	work   work
	link   string
	tool   string
	usages []*usage
}

// measureAll does every work over every link with every tool, in turns, so that
// what else the machine does hits all alike. Ours takes a turn before each of
// the others: all ratios hang on it, and over limited connections it costs the
// least time.
func (b *bench) measureAll(ctx context.Context) error {
	for _, link := range b.options.links {
		for _, w := range b.options.selected() {
			rows := make([]*row, len(b.tools))
			for i, t := range b.tools {
				rows[i] = &row{work: w, link: link, tool: t.name()}
			}
			b.rows = append(b.rows, rows...)
			for _, i := range b.turns(link) {
				u, err := b.pull(ctx, b.tools[i], w, link)
				if err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "%s %s %s: %.2f s, CPU %.2f s\n", link, w.name, b.tools[i].name(), u.Wall.Seconds(), u.CPU.Seconds())
				rows[i].usages = append(rows[i].usages, u)
			}
		}
	}
	return nil
}

// turns returns the tools, by index, in the order in which they are run.
func (b *bench) turns(link string) []int {
	var turns []int
	for round := range b.rounds(link, ours) {
		before := len(turns)
		for i, t := range b.tools[1:] {
			if round < b.rounds(link, t.name()) {
				turns = append(turns, 0, i+1)
			}
		}
		if len(turns) == before { // no other to compare with
			turns = append(turns, 0)
		}
	}
	return turns
}

func (b *bench) rounds(link, tool string) int {
	rounds := b.options.repeat
	if link == limited {
		rounds = b.options.repeatLimited
	}
	if tool == "docker" {
		rounds = min(rounds, b.options.repeatDocker)
		if !slices.Contains(b.options.dockerLinks, link) {
			rounds = 0
		}
	}
	return rounds
}

// pull lets a tool do a work once, looks whether it did, and removes the result.
func (b *bench) pull(ctx context.Context, t tool, w work, link string) (*usage, error) {
	out := filepath.Join(b.scratch, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(out) }() // the whole scratch directory goes in the end
	if err := warm(warmTimes * int64(w.layers) * w.size); err != nil {
		return nil, err
	}
	u, err := t.pull(ctx, w, b.server.hosts[link], out)
	if err != nil {
		return nil, err
	}
	return u, checkTarball(out, w)
}

// checkTarball notices a tool that only seems quick.
func checkTarball(dir string, w work) error {
	found, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("want one tarball, there are %d", len(found))
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return err
	}
	if least := int64(w.layers) * w.size; info.Size() < least {
		return fmt.Errorf("the tarball of %s has %d bytes, its layers have %d", w, info.Size(), least)
	}
	return nil
}
