// Package artifacts finds out which images a finished run of a GitHub Actions
// workflow built: it downloads the run's artifacts, applies a trust policy, and
// reads the references in them.
//
//	client, err := artifacts.New(&artifacts.Options{Token: token})
//	event, err := artifacts.EnvironmentEvent(os.Getenv)
//	build, err := client.Fetch(ctx, &artifacts.Request{Event: event, Policy: policy})
//	for _, output := range build.Outputs {
//		… output.Name, output.Reference
//	}
//
// [Client.Fetch] is made of parts that can be used alone: [Client.Run],
// [Client.List], [Client.Download], [Merge], [ReadOutputs], and a [Policy] for runs
// and references, which [Request.Accept] can override. Outputs are lines
// NAME=REFERENCE in text files; [Request.Parse] reads another format.
//
// Package [github.com/dockercache/dockercache/artifacts/workflow] passes the
// results on to a runner.
//
// # Secrets
//
// The token is sent only to the API, which must use https except on loopback. No
// error and no log line contains it, or what signs the URLs of the storage that
// downloads are redirected to, in any form in which a server may quote it. A run, an
// artifact's name or an output with one of these in it is refused.
//
// # Errors
//
// Each error of the API, of an archive and of a policy is an [*Error] that wraps
// one of the kinds declared beside it ([ErrNotFound], [ErrRefused], …) and gives
// advice. Those about the content of output files wrap [ErrOutputs].
//
// # Concurrency
//
// A [Client] is safe for concurrent use, and so are functions, an [Archive] and a
// [MergedDir]. The functions in a [Request] are called by the goroutine that calls
// Fetch. Options and other structs are read during a call and not changed; results
// belong to the caller.
package artifacts
