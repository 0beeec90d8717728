package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/fetch"
)

// scheme is what the address of a bucket begins with.
const scheme = "s3://"

// IsAddress reports whether text means a bucket, and not a directory: whether it begins
// with s3://.
func IsAddress(text string) bool { return strings.HasPrefix(text, scheme) }

// Options of [Open]. The zero value of each field works.
type Options struct {
	// Config, when not nil, is used in place of what the SDK finds in the environment and in
	// ~/.aws, as for its programs: region, profile, credentials, endpoint
	// (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL), and so on.
	Config *aws.Config
	// PathStyle puts the bucket's name into the path of requests, not into the host. Default:
	// where an endpoint is given, as for MinIO, Ceph, R2 and versitygw.
	PathStyle *bool
	// Connections and MinRangeRate are as in [cache.Options], for reading from sources.
	Connections  int
	MinRangeRate int64
	// Memory is how many bytes of images are in memory at a time at most, over all that are
	// stocked at the same time: what was read from sources and is not stored yet. Default:
	// 192 MiB. At least 64 MiB.
	Memory int64
	// Uploads is how many images are stocked at the same time at most; others wait. Each has
	// its part of Memory. Default: 2.
	Uploads int
	// TrustFor is for how long it counts that the bytes of an object were hashed: a layer of
	// one that has not changed since is copied by the server, and not hashed again. Less than
	// 0 copies nothing. Default: 7 days.
	TrustFor time.Duration
	// Checksum is the algorithm by which the server verifies each part: CRC64NVME, CRC32 or
	// CRC32C, those that S3 has of a whole object too. Default: CRC32C, for which processors have
	// an instruction: here and at the server it takes a tenth of the time of CRC64NVME.
	Checksum string
	// Encryption is the header x-amz-server-side-encryption: AES256, aws:kms or aws:kms:dsse;
	// KMSKey is the key of the latter two. They are for all that is written. Default: what the
	// bucket has.
	Encryption, KMSKey string
	// StorageClass is that of tarballs, such as STANDARD_IA. Default: STANDARD.
	StorageClass string
	// Tags are set on tarballs, 10 at most.
	Tags map[string]string
	// RequesterPays states in each request that this account pays for it, for a bucket of
	// another account that wants that.
	RequesterPays bool
	// Unconditional allows a server that ignores or refuses conditions of writes: the order of
	// writers is then what one look just before the end shows. Default: [ErrNoConditions].
	Unconditional bool
	// Logger logs damage that was found, and writers that are waited for. Default: silent.
	Logger *slog.Logger
}

// A Bucket is a place for tarballs in an object store, that any number of processes, on
// any number of machines, may read and write at the same time. It is made by [Open], and safe
// for concurrent use.
type Bucket struct {
	name, prefix string // the prefix ends in "/", or is empty
	options      Options
	client       *s3.Client
	fetcher      *fetch.Fetcher
	log          *slog.Logger
	now          func() time.Time
	limits       *limits       // of tests; nil is by the tarball's size
	saveStep     int64         // how many bytes an upload advances before that is recorded
	lookEvery    time.Duration // how often one that waits looks at what the other does
	uploads      chan struct{} // as many as may run
	inflight     inflight

	mu          sync.Mutex
	conditional bool // the server is known to keep conditions of writes
	copies      copying
	infos       map[string]known     // what objects hold, by name
	touched     map[string]time.Time // when uses were recorded, by name
}

const (
	defaultMemory  = 192 << 20
	leastMemory    = 64 << 20
	defaultUploads = 2
	defaultTrust   = 7 * 24 * time.Hour
	mostTags       = 10 // of an object, by S3
)

var checksums = []types.ChecksumAlgorithm{types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c}

// Open returns the tarballs at an address, s3://BUCKET or s3://BUCKET/PREFIX, of which the
// objects directly below the prefix are the tarballs. The bucket must exist; no request is
// made. The errors: an address or an option that cannot be meant; those of the SDK's
// configuration.
func Open(ctx context.Context, address string, o *Options) (*Bucket, error) {
	name, prefix, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	b := &Bucket{name: name, prefix: prefix, now: time.Now, saveStep: saveStep, lookEvery: lookEvery, infos: map[string]known{}, touched: map[string]time.Time{}}
	if o != nil {
		b.options = *o
	}
	p := &b.options
	p.Memory, p.Uploads = cmp.Or(p.Memory, defaultMemory), cmp.Or(p.Uploads, defaultUploads)
	p.TrustFor = cmp.Or(p.TrustFor, defaultTrust)
	p.Checksum = cmp.Or(p.Checksum, string(types.ChecksumAlgorithmCrc32c))
	switch {
	case p.Memory < leastMemory:
		return nil, fmt.Errorf("bucket: Options.Memory is %d bytes: it must be %d or more", p.Memory, leastMemory)
	case p.Uploads < 1:
		return nil, fmt.Errorf("bucket: Options.Uploads is %d: it must be 1 or more", p.Uploads)
	case !slices.Contains(checksums, types.ChecksumAlgorithm(p.Checksum)):
		return nil, fmt.Errorf("bucket: Options.Checksum is %q: it must be one of %v", p.Checksum, checksums)
	case p.Encryption != "" && !slices.Contains(types.ServerSideEncryption("").Values(), types.ServerSideEncryption(p.Encryption)):
		return nil, fmt.Errorf("bucket: Options.Encryption is %q: it must be one of %v", p.Encryption, types.ServerSideEncryption("").Values())
	case p.KMSKey != "" && !strings.HasPrefix(p.Encryption, "aws:kms"):
		return nil, errors.New("bucket: Options.KMSKey needs the Encryption aws:kms")
	case len(p.Tags) > mostTags:
		return nil, fmt.Errorf("bucket: Options.Tags are %d: S3 allows %d", len(p.Tags), mostTags)
	}
	if b.log = p.Logger; b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.uploads = make(chan struct{}, p.Uploads)
	if b.client, err = newClient(ctx, p); err != nil {
		return nil, err
	}
	b.fetcher = fetch.New(p.Connections)
	b.fetcher.Log = b.log
	if b.fetcher.MinRangeRate = p.MinRangeRate; p.MinRangeRate == 0 {
		b.fetcher.MinRangeRate = 1 << 10
	}
	return b, nil
}

// parseAddress parses s3://BUCKET/PREFIX.
func parseAddress(address string) (bucket, prefix string, err error) {
	fail := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("bucket: address %q: %s: it must be s3://BUCKET or s3://BUCKET/PREFIX", address, why)
	}
	rest, ok := strings.CutPrefix(address, scheme)
	if !ok {
		return fail("it does not begin with s3://")
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	switch {
	case bucket == "":
		return fail("it has no bucket")
	case strings.ContainsAny(bucket, "@?#: \\%") || url.PathEscape(bucket) != bucket:
		return fail("a bucket's name has no such characters")
	case strings.ContainsFunc(prefix, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fail("the prefix has a control character")
	}
	prefix = strings.TrimRight(prefix, "/")
	for part := range strings.SplitSeq(prefix, "/") {
		if prefix != "" && (part == "" || part == "." || part == "..") {
			return fail("the prefix has an empty part, . or ..")
		}
	}
	if len(prefix) > 700 {
		return fail("the prefix is longer than 700 bytes")
	}
	if prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

// Path returns the address of the bucket, as [Open] took it, without a slash at the end.
func (b *Bucket) Path() string { return strings.TrimRight(scheme+b.name+"/"+b.prefix, "/") }

// tarballPath returns the address of the tarball called name, if one can be called so.
func (b *Bucket) tarballPath(name string) (string, error) {
	if err := cache.CheckName(name); err != nil {
		return "", err
	}
	return b.address(name), nil
}

// key is the key of an object directly below the prefix.
func (b *Bucket) key(name string) *string { return aws.String(b.prefix + name) }

func (b *Bucket) payer() types.RequestPayer {
	if b.options.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}
