package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/dockercache/dockercache/artifacts"
)

// result is what -json prints for an output. The names are a contract: others
// parse them.
type result struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
	Artifact  string `json:"artifact"` // that brought it
	File      string `json:"file"`     // in the directory
	RunID     int64  `json:"run_id"`
	Branch    string `json:"branch"` // of the run
}

// printer says what happened. What it prints is foreign text, and the runner
// reads all of it: nothing goes out that was not made plain.
type printer struct {
	stdout, stderr io.Writer
	json           bool
	commands       *artifacts.Commands // nil outside of Actions
}

func (p *printer) outputs(build *artifacts.Build) error {
	for _, o := range build.Outputs {
		line := artifacts.Plain(o.Name + "=" + o.Reference)
		if p.json {
			r := result{o.Name, o.Reference, build.From(o).Name, o.File, build.Run.ID, build.Run.HeadBranch}
			raw, err := json.Marshal(r)
			if err != nil {
				return err
			}
			line = string(artifacts.PlainJSON(raw))
		}
		if _, err := fmt.Fprintln(p.stdout, line); err != nil {
			return fmt.Errorf("print the outputs: %w", err)
		}
	}
	return nil
}

func (p *printer) warn(text string) { p.say("warning: "+text, text, (*artifacts.Commands).Warning) }

func (p *printer) failed(err error) { p.say(err.Error(), err.Error(), (*artifacts.Commands).Error) }

// say writes a line to standard error, and in Actions an annotation with it.
// That it cannot be written is nothing that could be said anywhere.
func (p *printer) say(line, message string, annotate func(*artifacts.Commands, artifacts.Place, string) error) {
	fmt.Fprintf(p.stderr, "merge-artifacts: %s\n", artifacts.Plain(line))
	if p.commands != nil {
		_ = annotate(p.commands, artifacts.Place{Title: "merge-artifacts"}, message)
	}
}
