// Package workflow writes what the runner of a GitHub Actions job reads: outputs,
// a summary, annotations, and plain text that is none of these.
//
//	[AppendOutputs]   outputs of the step, to $GITHUB_OUTPUT
//	[AppendSummary]   a table and a chart of images, to $GITHUB_STEP_SUMMARY
//	[Commands]        notices, warnings, errors, groups and masks, to standard output
//	[Plain]           text, to standard output
//
// Arguments may be text that is not trusted: none becomes a command, an output or
// markup of its own. A build's text must not be printed in any other way, since the
// runner reads commands in everything that a step prints.
//
// All functions are safe for concurrent use. The package uses no network.
package workflow
