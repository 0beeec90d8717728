package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// bench is one run of the benchmark.
type bench struct {
	options *options
	scratch string
	server  *server
	tools   []tool
	rows    []*row
	kill    *killed // nil if that was not asked for
}

// row is what a tool needed for a work over a link, run by run.
type row struct {
	work   work
	link   string
	tool   string
	usages []*usage
}

// measureAll does every work over every link with every tool, in turns, so that
// what else the machine does hits all alike.
func (b *bench) measureAll(ctx context.Context) error {
	for _, link := range b.options.links {
		for _, w := range b.options.selected() {
			rows := make([]*row, len(b.tools))
			for i, t := range b.tools {
				rows[i] = &row{work: w, link: link, tool: t.name()}
			}
			b.rows = append(b.rows, rows...)
			for round := range b.rounds(link, "") {
				for i, t := range b.tools {
					if round >= b.rounds(link, t.name()) {
						continue
					}
					u, err := b.pull(ctx, t, w, link)
					if err != nil {
						return err
					}
					fmt.Fprintf(os.Stderr, "%s %s %s: %.2f s\n", link, w.name, t.name(), u.Wall.Seconds())
					rows[i].usages = append(rows[i].usages, u)
				}
			}
		}
	}
	return nil
}

func (b *bench) rounds(link, tool string) int {
	rounds := b.options.repeat
	if link == limited {
		rounds = b.options.repeatLimited
	}
	if tool == "docker" {
		rounds = min(rounds, b.options.repeatDocker)
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
