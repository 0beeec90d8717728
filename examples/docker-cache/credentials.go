package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// newKeychain returns where credentials come from, in order: AWS for the hosts
// of ECR, then what the registry package has by default. Nothing is asked for
// before a registry needs it.
func newKeychain(o *options, log *slog.Logger, stderr io.Writer) (authn.Keychain, error) {
	options := &awsauth.Options{RoleARN: o.roleARN, Region: o.region, Duration: time.Duration(o.roleDuration), Logger: log}
	if os.Getenv("GITHUB_ACTIONS") == "true" && !isFile(stderr) {
		options.Secret = func(secret string) { _, _ = io.WriteString(stderr, maskCommand(secret)) }
	}
	aws, err := awsauth.NewKeychain(options)
	if err != nil {
		return nil, err
	}
	return append(registry.Chain{{Name: "AWS", Keychain: aws}}, registry.DefaultChain()...), nil
}

// maskCommand tells the runner of GitHub Actions to hide a secret in whatever
// any step prints. The runner reads commands from both outputs; standard output
// is for results.
func maskCommand(secret string) string {
	return "::add-mask::" + strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(secret) + "\n"
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
