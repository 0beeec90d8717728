package awsauth_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/dockercache/dockercache/internal/awstest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// newClient returns a client of registries that logs in to ECR as a role.
func newClient(role string) (*registry.Client, error) {
	keychain, err := awsauth.NewKeychain(&awsauth.Options{RoleARN: role, Duration: 5 * time.Hour})
	if err != nil {
		return nil, err
	}
	chain := append(registry.Chain{{Name: "AWS", Keychain: keychain}}, registry.DefaultChain()...)
	return registry.New(&registry.Options{Keychain: chain}), nil
}

// Nothing is asked of AWS before the first image in ECR.
func Example() {
	if _, err := newClient("arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only"); err != nil {
		log.Fatal(err)
	}
	_, err := newClient("gha_workflow_s3_and_ecr_read_only")
	fmt.Println(errors.Is(err, awsauth.ErrInvalidOptions))
	// Output: true
}

func ExampleNewKeychain() {
	server := exampleJob()
	keychain, err := awsauth.NewKeychain(&awsauth.Options{
		RoleARN: "arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only",
		// A line for GitHub's runner, which hides the secret from then on.
		Secret: func(secret string) { fmt.Fprintln(os.Stderr, "::add-mask::"+secret) },
	})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := name.NewRepository("308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image")
	if err != nil {
		log.Fatal(err)
	}
	authenticator, err := keychain.Resolve(repo)
	if err != nil {
		log.Fatal(err)
	}
	login, err := authenticator.Authorization()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(login.Username, server.GoodPassword(login.Username, login.Password))
	// Output: AWS true
}

// exampleJob makes this process look like a GitHub job with the permission
// `id-token: write`, and AWS be in process.
func exampleJob() *awstest.Server {
	server, err := awstest.Start()
	if err != nil {
		log.Fatal(err)
	}
	for key, value := range server.Env() {
		if err := os.Setenv(key, value); err != nil {
			log.Fatal(err)
		}
	}
	return server
}
