package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
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

// isFile tells whether what is printed ends in a file, and not at the runner: a
// command would leave the secret there.
func isFile(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// seconds is a flag for a duration, with a unit or as the number of seconds that
// GitHub's action has.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, numberErr := strconv.ParseUint(text, 10, 31); numberErr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d == 0 { // which would be the default
		return fmt.Errorf("want a duration such as 5h, or seconds")
	}
	*s = seconds(d)
	return nil
}
