// Package artifacts is the side of GitHub Actions: from an event to the images
// that a finished build run made, and back to the runner.
//
//	client, err := artifacts.New(&artifacts.Options{Token: token})
//	event, err := artifacts.EnvironmentEvent(os.Getenv)
//	build, err := client.Fetch(ctx, &artifacts.Request{Event: event, Gate: gate})
//	…
//	err = artifacts.AppendOutputs(os.Getenv("GITHUB_OUTPUT"), build.Outputs)
//
// [Client.Fetch] does what a workflow has steps for: it finds the run, downloads
// its artifacts, merges them, and reads the lines NAME=REFERENCE in their text
// files. Its parts are there on their own: [Client.Run], [Client.List],
// [Client.Download], [Merge], [ReadOutputs], and a [Gate] that decides what is
// trusted. The workflow that this project replaces trusted everything, and
// pasted such files unread into its own outputs, where any line could become any
// output.
//
// For the runner there are [WriteOutputs], [Commands], [Plain] and [Summary].
// None of them lets a text that is not trusted become a command, an output or
// markup.
//
// # Secrets
//
// The token is sent to the API alone, which must speak https except on loopback.
// It is in no error and no log line, and neither are query strings, which sign
// the URLs of the storage that downloads are redirected to.
//
// # Errors
//
// Each error of the API, of an archive and of a gate is an [*Error] that wraps
// one of the kinds declared beside it ([ErrNotFound], [ErrRefused], …) and says
// what to do about it. Those about the content of output files wrap
// [ErrOutputs].
package artifacts
