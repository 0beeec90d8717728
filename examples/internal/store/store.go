// Package store opens what -dir names: a directory of tarballs, or a bucket of them.
package store

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// A Store is where tarballs are: a [cache.Dir] or a [bucket.Bucket], which have the same
// methods and promise the same.
type Store interface {
	Path() string
	Stock(ctx context.Context, name, ref string, remote cache.Remote, o *cache.PutOptions) (*cache.Result, error)
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
	List(ctx context.Context) ([]cache.Entry, error)
	Entries(ctx context.Context, names []string) ([]cache.Entry, error)
	Verify(ctx context.Context, names []string, o *cache.VerifyOptions) ([]cache.VerifyResult, error)
	Repair(ctx context.Context, damaged *cache.VerifyResult, src tarball.Source, o *cache.RepairOptions) (*cache.Result, error)
	Prune(ctx context.Context, o *cache.PruneOptions) (*cache.PruneResult, error)
	Touch(ctx context.Context, name string) error
}

// Open opens a directory, or the bucket that an address means: of the options those that a
// bucket has too, and those of s3. Nil options are the defaults.
func Open(ctx context.Context, at string, o *cache.Options, s3 *S3) (Store, error) {
	if !IsBucket(at) {
		dir, err := cache.Open(at, o)
		if err != nil { // no nil *Dir in the interface
			return nil, err
		}
		return dir, nil
	}
	if o == nil {
		o = &cache.Options{}
	}
	var options bucket.Options
	if s3 != nil {
		options = s3.options
	}
	options.Connections, options.MinRangeRate, options.TrustFor, options.Logger = o.Connections, o.MinRangeRate, o.TrustFor, o.Logger
	b, err := bucket.Open(ctx, at, &options)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// IsBucket reports whether text is the address of a bucket, and not a path.
func IsBucket(text string) bool { return bucket.IsAddress(text) }

// Local returns a path; "" for the address of a bucket.
func Local(at string) string {
	if IsBucket(at) {
		return ""
	}
	return at
}

// Join returns the path or the address of what is called name at a path or an address.
func Join(at, name string) string {
	if IsBucket(at) { // "//" stays
		return strings.TrimRight(at, "/") + "/" + name
	}
	return filepath.Join(at, name)
}

// Split is the reverse of [Join].
func Split(address string) (at, name string) {
	if IsBucket(address) {
		i := strings.LastIndex(address, "/")
		return address[:i], address[i+1:]
	}
	return filepath.Split(address)
}

// directoryFlags are the flags of all programs that say nothing about a bucket.
var directoryFlags = []string{"quota", "mode", "group", "dir-mode", "grace", "take-over", "foreign", "sample"}

// Dir returns the directory or the address that was given with -dir, or the default
// directory. The error is that of [S3.Check], or that a flag of the set was given that is not
// for a bucket, or not for a directory.
func (s *S3) Dir(given string, set *flag.FlagSet) (string, error) {
	at, err := cli.Dir(given)
	if err == nil {
		err = s.check(at, set)
	}
	if err == nil {
		err = s.Check("dir", at)
	}
	if err != nil || !IsBucket(at) {
		return at, err
	}
	set.Visit(func(f *flag.Flag) {
		if err == nil && slices.Contains(directoryFlags, f.Name) {
			err = fmt.Errorf("-%s is for directories, and -dir %s is a bucket: leave it out", f.Name, at)
		}
	})
	return at, err
}

// Check returns what is wrong with the address that a flag has, or with the flags for buckets;
// nothing with that of a directory.
func (s *S3) Check(flag, at string) error {
	if !IsBucket(at) {
		if scheme, _, ok := strings.Cut(at, "://"); ok && !strings.Contains(scheme, "/") {
			return fmt.Errorf("-%s %s: want a directory, or s3://BUCKET/PREFIX", flag, at)
		}
		return nil
	}
	// With a configuration it reads none, so what is wrong was given.
	options := s.options
	options.Config = &aws.Config{}
	if _, err := bucket.Open(context.Background(), at, &options); err != nil {
		return fmt.Errorf("-%s: %w", flag, err)
	}
	return nil
}

// Usage is the help of -dir.
const Usage = "the directory of tarballs, `DIR`, or s3://BUCKET/PREFIX (default ~/pytorch-data/docker)"
