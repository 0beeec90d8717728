// Package workflow writes what a job of GitHub Actions says to its runner:
// outputs, a summary, annotations, and plain text that is none of these.
//
//	[AppendOutputs]   outputs of the step, to $GITHUB_OUTPUT
//	[AppendSummary]   a table and a chart of images, to $GITHUB_STEP_SUMMARY
//	[Commands]        notices, warnings, errors, groups and masks, to standard output
//	[Plain]           text, to standard output
//
// No argument has to be trusted: none can become a command, an output or markup
// of its own. Text that a build left behind must not go to a runner in any other
// way, since the runner reads commands in all that a step prints.
//
// All functions are safe for concurrent use. The package uses no network.
package workflow
