package workflow_test

import (
	"bytes"
	"fmt"
	"log"
	"os"

	"github.com/dockercache/dockercache/artifacts/workflow"
)

func Example() {
	const foreign = "::error::not my error"

	fmt.Println(workflow.Plain(foreign))
	commands := workflow.NewCommands(os.Stdout)
	if err := commands.Warning(workflow.Annotation{Title: "build"}, foreign); err != nil {
		log.Fatal(err)
	}
	var outputs bytes.Buffer // in a job: AppendOutputs(os.Getenv("GITHUB_OUTPUT"), …)
	if err := workflow.WriteOutputs(&outputs, []workflow.Output{{Name: "tarball", Value: "jammy_main.tar"}}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// | ::error::not my error
	// ::warning title=build::| ::error::not my error
}
