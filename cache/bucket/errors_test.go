package bucket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// verbs are all that a bucket can do.
func verbs(t testing.TB, src *source) map[string]func(b *Bucket) error {
	return map[string]func(b *Bucket) error{
		"get":    func(b *Bucket) error { _, err := b.Get(t.Context(), name); return err },
		"list":   func(b *Bucket) error { _, err := b.List(t.Context()); return err },
		"touch":  func(b *Bucket) error { return b.Touch(t.Context(), name) },
		"remove": func(b *Bucket) error { return b.Remove(t.Context(), name) },
		"prune":  func(b *Bucket) error { _, err := b.Prune(t.Context(), &cache.PruneOptions{Count: 1}); return err },
		"sweep":  func(b *Bucket) error { _, err := b.Sweep(t.Context(), nil); return err },
		"verify": func(b *Bucket) error {
			results, err := b.Verify(t.Context(), []string{name}, nil)
			if err == nil {
				err = results[0].Err
			}
			return err
		},
		"put": func(b *Bucket) error {
			_, err := b.Put(t.Context(), "new_main.tar", src.image(t, src.layers(50_000)...), src, nil)
			return err
		},
	}
}

// requireNoSecrets requires that an error's text has no credentials.
func requireNoSecrets(t testing.TB, err error) {
	t.Helper()
	for _, secret := range []string{buckettest.AccessKeyID, buckettest.SecretAccessKey, "Signature", "AWS4-HMAC", "session-token", "AKID"} {
		require.NotContains(t, err.Error(), secret)
	}
}

// What is not allowed is an error that names the action that has to be.
func TestDenied(t *testing.T) {
	for verb, needs := range map[string]map[buckettest.Op]string{
		"get":    {buckettest.GetObject: "s3:GetObject"},
		"list":   {buckettest.ListObjectsV2: "s3:ListBucket"},
		"touch":  {buckettest.HeadObject: "s3:GetObject", buckettest.PutObject: "s3:PutObject"},
		"remove": {buckettest.HeadObject: "s3:GetObject", buckettest.DeleteObject: "s3:DeleteObject"},
		"prune":  {buckettest.ListObjectsV2: "s3:ListBucket", buckettest.ListMultipartUploads: "s3:ListBucketMultipartUploads", buckettest.DeleteObject: "s3:DeleteObject"},
		"sweep":  {buckettest.ListObjectsV2: "s3:ListBucket", buckettest.ListMultipartUploads: "s3:ListBucketMultipartUploads"},
		"verify": {buckettest.GetObject: "s3:GetObject"},
		"put":    {buckettest.HeadObject: "s3:GetObject", buckettest.CreateMultipartUpload: "s3:PutObject", buckettest.UploadPart: "s3:PutObject"},
	} {
		for op, action := range needs {
			server := buckettest.New(t, "bucket")
			src := newSource()
			stock(t, server, name, src, src.layer(1, 100_000))
			stock(t, server, "name_other.tar", src, src.layer(1, 100_000))
			server.Age(48 * time.Hour)
			server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{op: true}})
			err := verbs(t, src)[verb](open(t, server, nil))
			require.ErrorIs(t, err, fs.ErrPermission, "%s %s", verb, op)
			require.NotErrorIs(t, err, fs.ErrNotExist)
			require.ErrorContains(t, err, "the credentials need "+action)
			require.ErrorContains(t, err, "s3://bucket/images/")
			var e *Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, op, e.Op)
			assert.Equal(t, action, e.Action)
			assert.Equal(t, 403, e.Status)
			requireNoSecrets(t, err)
		}
	}
}

// A bucket that does not exist is not an empty one. The answer to HEAD does not tell it from an
// object that is not there.
func TestNoBucket(t *testing.T) {
	server := buckettest.New(t, "bucket")
	server.SetQuirks(buckettest.Quirks{NoBucket: true})
	for verb, do := range verbs(t, newSource()) {
		err := do(open(t, server, nil))
		require.Error(t, err, verb)
		requireNoSecrets(t, err)
		if verb == "touch" || verb == "remove" {
			require.ErrorIs(t, err, fs.ErrNotExist, verb)
			continue
		}
		require.ErrorContains(t, err, "create the bucket", verb)
		require.NotErrorIs(t, err, fs.ErrNotExist, verb)
	}
}

// That nothing answers is said with the endpoint.
func TestNoServer(t *testing.T) {
	b := &Bucket{name: "bucket", prefix: "images/"}
	for _, op := range []string{"GetObject", "PutObject"} {
		err := b.wrap(t.Context(), op, name, &smithy.OperationError{ServiceID: "S3", OperationName: op, Err: &awsAttempts{Attempt: 8, Err: &smithyhttp.RequestSendError{Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}}}})
		assert.Equal(t, op+" s3://bucket/images/"+name+": dial tcp: connection refused: check the endpoint (AWS_ENDPOINT_URL_S3) and the network", err.Error())
		require.NotErrorIs(t, err, fs.ErrNotExist)
	}
}

// That there are no credentials is said.
func TestNoCredentials(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b := openWith(t, server, aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no role was found")
	}))
	_, err := b.Get(t.Context(), name)
	require.ErrorContains(t, err, "no role was found: there are no credentials (AWS_ACCESS_KEY_ID")
	assert.Empty(t, server.Requests())
}

// A clock that is wrong is made up for.
func TestClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-20 * time.Minute, 3 * time.Hour} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		img := src.image(t, src.layers(100_000)...)
		server.SetQuirks(buckettest.Quirks{ClockSkew: skew})
		b := open(t, server, nil)
		_, err := b.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		require.NoError(t, get(t, b, name).Verify(t.Context(), nil))
		assert.Positive(t, server.Happened("ClockSkew"))
		assert.LessOrEqual(t, server.Happened("ClockSkew"), 3, "it is found out once")
	}
}

// ETags need not be MD5.
func TestOpaqueETags(t *testing.T) {
	server := buckettest.New(t, "bucket")
	server.SetQuirks(buckettest.Quirks{OpaqueETags: true})
	b, src := open(t, server, nil), newSource()
	layers := src.layers(100_000, 200_000)
	img := src.image(t, layers...)
	_, err := b.Put(t.Context(), name, img, src, nil)
	require.NoError(t, err)
	requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	requireLayer(t, get(t, b, name), src, layers[1])
	for range 2 {
		_, err = b.List(t.Context())
		require.NoError(t, err)
	}
	r, err := b.Prune(t.Context(), &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Len(t, r.Removed, 1)
}

// What a server answers does not bring credentials, lines or more than a few of them into an error.
func TestHostileMessage(t *testing.T) {
	const token = "FwoGZXIvYXdzEXAMPLETOKEN"
	for _, message := range []string{
		"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=" + token,
		"https://bucket/?X-Amz-Security-Token=" + token + "&X-Amz-Signature=" + token + "&X-Amz-Credential=ASIAIOSFODNN7EXAMPLE%2F2026",
		"the key AKIAIOSFODNN7EXAMPLE is\nnot\x1b[31m known" + strings.Repeat(" long", 1000),
		"\xff\xfe",
	} {
		b := &Bucket{name: "bucket", prefix: "images/"}
		for _, err := range []error{&smithy.GenericAPIError{Code: "Odd", Message: message}, errors.New(message)} {
			text := b.wrap(t.Context(), "GetObject", name, err).Error()
			for _, bad := range []string{token, "IOSFODNN7EXAMPLE", "\n", "\x1b"} {
				assert.NotContains(t, text, bad)
			}
			assert.Less(t, len(text), 700)
			assert.Equal(t, strings.ToValidUTF8(text, ""), text)
		}
	}
}
