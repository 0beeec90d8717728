// Package awstest is the part of GitHub and AWS that logs a job in to ECR, in
// process, for tests: the endpoint that issues OIDC ID tokens, STS (query
// protocol, XML), ECR and ECR Public (JSON 1.1). They check their requests, expire
// what they issue, and have the faults that the real ones have but do not show on
// demand. Each fault is a named field of [Quirks].
//
//	server := awstest.New(t)
//	server.Setenv(t)
//	server.SetQuirks(awstest.Quirks{STSThrottled: true, STSThrottledCount: 2})
//
// It imports neither the SDK's clients nor a package of this module, so that a
// mistake in one of them is not made here too.
package awstest
