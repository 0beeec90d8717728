package main

import (
	"log/slog"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// newKeychain returns where credentials come from, in order: AWS for the hosts
// of ECR, then what the registry package has by default. Nothing is asked for
// before a registry needs it. mask is told each secret of AWS; nil for nobody.
func newKeychain(o *options, log *slog.Logger, mask func(secret string)) (authn.Keychain, error) {
	options := &awsauth.Options{RoleARN: o.roleARN, Region: o.region, Duration: time.Duration(o.roleDuration), Logger: log, Secret: mask}
	aws, err := awsauth.NewKeychain(options)
	if err != nil {
		return nil, err
	}
	return append(registry.Chain{{Name: "AWS", Keychain: aws}}, registry.DefaultChain()...), nil
}
