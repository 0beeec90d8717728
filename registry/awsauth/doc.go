// Package awsauth gives the credentials of Amazon's registries, ECR and ECR
// Public, to whoever takes a keychain of go-containerregistry:
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
// Otherwise the default chain of the AWS SDK serves: environment, profile,
// container, instance. Both as [LoadConfig] has it, for other clients of AWS.
//
// Every variable that the SDK honours keeps its meaning: AWS_REGION,
// AWS_PROFILE, AWS_ENDPOINT_URL and the ones for single services (…_STS, …_ECR,
// …_ECR_PUBLIC), AWS_CA_BUNDLE, AWS_MAX_ATTEMPTS, and so on.
//
// # What a keychain answers
//
//   - For a host of ECR: the user and password that GetAuthorizationToken gives
//     for the account and region in the host's name. They are kept until a
//     twelfth of their lifetime is left, which is 1 h of 12. A failure of AWS is
//     an error: going on without credentials would end in a "denied" that says
//     nothing.
//   - For public.ecr.aws and ecr-public.aws.com: the same from ECR Public, in
//     us-east-1. There a failure of AWS, no credentials included, is logged and
//     leaves the host to the next keychain, because everybody may pull from it.
//   - For any other host: nothing, so the next keychain is asked. Neither
//     credentials nor AWS's configuration are looked for before the first host
//     of ECR is: the search for an instance's role takes seconds where there is
//     none.
//
// The forms of ECR's host names, with FIPS endpoints, China, dual-stack, and
// the isolated partitions, are in hosts.go.
//
// # Secrets
//
// No secret is in any log line or error. [Options.Secret] is told each one, for
// a CI system that shall mask it in what other programs print.
package awsauth
