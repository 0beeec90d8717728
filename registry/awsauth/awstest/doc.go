// Package awstest is the part of GitHub and AWS that logs a job in to ECR, in
// process, for tests: the endpoint that gives out OIDC ID tokens, STS (query
// protocol, XML), ECR and ECR Public (JSON 1.1). They check what they are sent,
// expire what they hand out, and have the faults that the real ones have but do
// not show on demand. Each fault is a named field of [Quirks].
//
//	server := awstest.New(t)
//	server.Setenv(t)
//	server.SetQuirks(awstest.Quirks{STSThrottled: true, STSThrottledCount: 2})
//
// It has no package of the SDK's clients and no package of this module in it, so
// it serves to test any program that logs in this way.
package awstest
