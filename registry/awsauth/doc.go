// Package awsauth has a keychain of go-containerregistry for Amazon's registries,
// ECR and ECR Public:
//
//	keychain, err := awsauth.NewKeychain(&awsauth.Options{
//		RoleARN:  "arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only",
//		Duration: 5 * time.Hour,
//	})
//	…
//	client := registry.New(&registry.Options{
//		Keychain: append(registry.Chain{{Name: "AWS", Keychain: keychain}}, registry.DefaultChain()...),
//	})
//
// With a role and in a GitHub job with `permissions: id-token: write`, the job's
// OIDC ID token is exchanged for credentials of the role
// (AssumeRoleWithWebIdentity), which are renewed in process before they end.
// Otherwise the credentials are those of the AWS SDK's default chain: environment,
// profile, container, instance.
//
// Every variable that the SDK reads keeps its meaning: AWS_REGION, AWS_PROFILE,
// AWS_ENDPOINT_URL and the ones for single services (…_STS, …_ECR, …_ECR_PUBLIC),
// AWS_CA_BUNDLE, AWS_MAX_ATTEMPTS, and so on.
//
// # What a keychain returns
//
//   - For a host of ECR: the user and password that GetAuthorizationToken returns
//     for the account and region in the host's name. They are cached until a
//     twelfth of their lifetime is left, which is 1 h of 12. A failure of AWS is
//     an error: a request without credentials would only be denied.
//   - For public.ecr.aws and ecr-public.aws.com: the same from ECR Public, in
//     us-east-1. There a failure of AWS, missing credentials included, is logged
//     and the next keychain is asked, because everybody may pull from it.
//   - For any other host: nothing, so the next keychain is asked. Neither
//     credentials nor AWS's configuration are looked for before the first host
//     of ECR: the search for an instance's role takes seconds where there is none.
//
// The forms of ECR's host names, with FIPS endpoints, China, dual-stack, and
// the isolated partitions, are in hosts.go.
//
// # Secrets
//
// No secret is in any log line or error. [Options.Secret] is called with each one,
// for a CI system that masks it in the output of other programs.
//
// # Concurrency
//
// A [Keychain] is safe for concurrent use; the functions in [Options] are called
// concurrently. Options are copied.
package awsauth
