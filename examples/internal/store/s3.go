package store

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/cache/bucket"
)

// S3 are the flags that are for buckets alone. The zero value is none of them.
type S3 struct{ options bucket.Options }

// RegisterWrites defines the flags that are about what is stored.
func (s *S3) RegisterWrites(set *flag.FlagSet) {
	set.StringVar(&s.options.Encryption, "s3-encryption", "", "how objects are encrypted, `HOW`: AES256, aws:kms or aws:kms:dsse (default: as the bucket does)")
	set.StringVar(&s.options.KMSKey, "s3-kms-key", "", "the `KEY` of KMS, by its ARN or ID; -s3-encryption is then aws:kms by default")
	set.StringVar(&s.options.StorageClass, "s3-storage-class", "", "the storage `CLASS` of tarballs, such as STANDARD_IA or INTELLIGENT_TIERING (default STANDARD)")
	set.Var((*tags)(&s.options.Tags), "s3-tags", "the tags of tarballs, `KEY=VALUE`[,KEY=VALUE...]")
}

// requesterPays is the flag that is for reading too.
const requesterPays = "s3-requester-pays"

// RegisterReads defines the flag of all programs.
func (s *S3) RegisterReads(set *flag.FlagSet) {
	set.BoolVar(&s.options.RequesterPays, requesterPays, false, "pay for the requests to a bucket of another account that wants that")
}

// encryptions are what -s3-encryption may be.
var encryptions = []string{"AES256", "aws:kms", "aws:kms:dsse"}

// check finds out what is wrong with the flags, or which of a set is not for the directory at, and
// fills in defaults.
func (s *S3) check(at string, set *flag.FlagSet) (err error) {
	o := &s.options
	if o.KMSKey != "" {
		o.Encryption = cmp.Or(o.Encryption, "aws:kms")
	}
	switch {
	case o.Encryption != "" && !slices.Contains(encryptions, o.Encryption):
		return fmt.Errorf("-s3-encryption %s: want one of %s", o.Encryption, strings.Join(encryptions, ", "))
	case o.KMSKey != "" && o.Encryption == "AES256":
		return errors.New("-s3-kms-key is for -s3-encryption aws:kms")
	case IsBucket(at):
		return nil
	}
	from := set.Lookup("from")
	readsBucket := from != nil && IsBucket(from.Value.String()) || slices.ContainsFunc(set.Args(), IsBucket)
	set.Visit(func(f *flag.Flag) {
		if err == nil && strings.HasPrefix(f.Name, "s3-") && !(f.Name == requesterPays && readsBucket) {
			err = fmt.Errorf("-%s is for buckets, and -dir %s is a directory: leave it out", f.Name, at)
		}
	})
	return err
}

// tags are a flag.
type tags map[string]string

func (t *tags) String() string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(*t)) {
		all = append(all, key+"="+(*t)[key])
	}
	return strings.Join(all, ",")
}

// Set adds the tags in text.
func (t *tags) Set(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || key == "" {
			return errors.New("want KEY=VALUE, or several with commas")
		}
		if _, twice := (*t)[key]; twice {
			return fmt.Errorf("the key %q is there twice", key)
		}
		if *t == nil {
			*t = tags{}
		}
		(*t)[key] = value
	}
	return nil
}
