package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/workflow"
)

// outputsOf returns the build's outputs and those that identify the run: a program
// that caches the images later needs them, so that an older run does not replace a
// newer one's tarball.
func outputsOf(build *artifacts.Build) ([]workflow.Output, error) {
	own := []workflow.Output{
		{Name: "run-id", Value: strconv.FormatInt(build.Run.ID, 10)},
		{Name: "run-attempt", Value: strconv.FormatInt(build.Run.Attempt, 10)},
		{Name: "branch", Value: build.Run.HeadBranch},
	}
	var outputs []workflow.Output
	for _, image := range build.Outputs {
		if slices.ContainsFunc(own, func(o workflow.Output) bool { return o.Name == image.Name }) {
			return nil, fmt.Errorf("%s:%d: the build has an output called %q, which is reserved for the run's own: rename the image", image.File, image.Line, image.Name)
		}
		outputs = append(outputs, workflow.Output{Name: image.Name, Value: image.Reference})
	}
	return append(outputs, own...), nil
}

// result is what -json prints for an output. The names are a contract: other
// programs parse them.
type result struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
	Artifact  string `json:"artifact"` // that contains it
	File      string `json:"file"`     // in the directory
	RunID     int64  `json:"run_id"`
	Branch    string `json:"branch"` // of the run
}

func (m *merger) print(build *artifacts.Build) error {
	for _, o := range build.Outputs {
		line := workflow.Plain(o.Name + "=" + o.Reference)
		if m.json {
			raw, err := json.Marshal(result{o.Name, o.Reference, build.From(o).Name, o.File, build.Run.ID, build.Run.HeadBranch})
			if err != nil {
				return err
			}
			line = string(workflow.PlainJSON(raw))
		}
		if _, err := fmt.Fprintln(m.stdout, line); err != nil {
			return fmt.Errorf("print the outputs: %w", err)
		}
	}
	return nil
}
