package buckettest_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/bucket/buckettest"
)

var bucket = aws.String("bucket")

// client returns a client that tries so many times, without a wait.
func client(server *buckettest.Server, attempts int) *s3.Client {
	return s3.NewFromConfig(server.Config(), func(o *s3.Options) {
		o.UsePathStyle = true
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.RateLimiter = ratelimit.None
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	})
}

// start returns a server with small parts and a client that tries once.
func start(t *testing.T) (*buckettest.Server, *s3.Client) {
	t.Helper()
	server := buckettest.New(t, *bucket)
	server.MinPartSize = 4
	return server, client(server, 1)
}

// failure returns the status and code of an error; the code is that of the SDK where the
// answer has no body.
func failure(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() == 0 {
		return "no answer"
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Sprint(response.HTTPStatusCode())
	}
	return fmt.Sprintf("%d %s", response.HTTPStatusCode(), api.ErrorCode())
}

func etagOf(content string) string { return fmt.Sprintf(`"%x"`, md5.Sum([]byte(content))) }

func put(t *testing.T, c *s3.Client, key, content string, change ...func(*s3.PutObjectInput)) (*s3.PutObjectOutput, error) {
	t.Helper()
	in := &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(content)}
	for _, f := range change {
		f(in)
	}
	return c.PutObject(t.Context(), in)
}

func get(t *testing.T, c *s3.Client, key string, change ...func(*s3.GetObjectInput)) (*s3.GetObjectOutput, string, error) {
	t.Helper()
	in := &s3.GetObjectInput{Bucket: bucket, Key: &key}
	for _, f := range change {
		f(in)
	}
	out, err := c.GetObject(t.Context(), in)
	if err != nil {
		return nil, "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	return out, string(body), err
}

func TestObjects(t *testing.T) {
	server, c := start(t)
	_, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: bucket})
	require.NoError(t, err)
	const key = "a dir/ä+&?%2F.tar"
	out, err := put(t, c, key, "content", func(in *s3.PutObjectInput) {
		in.Metadata = map[string]string{"Name": "value"}
		in.ContentType = aws.String("application/x-tar")
	})
	require.NoError(t, err)
	assert.Equal(t, etagOf("content"), *out.ETag)
	assert.NotEmpty(t, *out.ChecksumCRC32, "the SDK sends one")
	assert.Equal(t, []string{key}, server.Objects())
	content, ok := server.Object(key)
	assert.True(t, ok)
	assert.Equal(t, "content", string(content))
	assert.Equal(t, map[string]string{"name": "value"}, server.Metadata(key))
	assert.Equal(t, etagOf("content"), server.ETag(key))
	assert.Equal(t, int64(7), server.Sent())

	read, body, err := get(t, c, key)
	require.NoError(t, err)
	assert.Equal(t, "content", body)
	assert.Equal(t, map[string]string{"name": "value"}, read.Metadata)
	assert.Equal(t, "application/x-tar", *read.ContentType)
	assert.Equal(t, *out.ChecksumCRC32, aws.ToString(read.ChecksumCRC32))
	assert.WithinDuration(t, time.Now(), *read.LastModified, time.Minute)

	server.Age(time.Hour)
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String(key)})
	require.NoError(t, err)
	assert.Equal(t, int64(7), *head.ContentLength)
	assert.Equal(t, read.LastModified.Add(-time.Hour), *head.LastModified)
	_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("none")})
	assert.Equal(t, "404 NotFound", failure(t, err))
	_, _, err = get(t, c, "none")
	var none *types.NoSuchKey
	require.ErrorAs(t, err, &none)

	requests := server.Requests()
	require.Len(t, requests, 6)
	assert.Equal(t, buckettest.PutObject, requests[1].Op)
	assert.Equal(t, key, requests[1].Key)
	assert.Equal(t, int64(7), requests[1].Uploaded)
	assert.Equal(t, int64(7), requests[2].Downloaded)
	assert.Equal(t, requests[1].Remote, requests[2].Remote, "the connection is reused")
	assert.Equal(t, 404, requests[5].Status)
	assert.Equal(t, "NoSuchKey", requests[5].Code)
	assert.Equal(t, buckettest.AccessKeyID, requests[5].AccessKeyID)
	assert.Equal(t, buckettest.Region, requests[5].Region)
	assert.Equal(t, 2, server.Count(buckettest.GetObject))

	server.Remove(key)
	assert.Empty(t, server.Objects())
	_, ok = server.Object(key)
	assert.False(t, ok)
	assert.Nil(t, server.Metadata(key))
	assert.Empty(t, server.ETag(key))
	_, err = c.GetObjectAcl(t.Context(), &s3.GetObjectAclInput{Bucket: bucket, Key: aws.String(key)})
	assert.Equal(t, "501 NotImplemented", failure(t, err))
	_, err = put(t, c, "key", "", func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"a": strings.Repeat("b", 2048)} })
	assert.Equal(t, "400 MetadataTooLarge", failure(t, err))
	_, err = put(t, c, strings.Repeat("k", 1025), "")
	assert.Equal(t, "400 KeyTooLongError", failure(t, err))
}

func TestReads(t *testing.T) {
	server, c := start(t)
	server.Put("key", []byte("0123456789"), map[string]string{"Name": "value"})
	server.Put("empty", nil, nil)
	tag := etagOf("0123456789")
	for name, one := range map[string]struct {
		key, ranges, match, none string
		body, contentRange, want string
	}{
		"whole":             {key: "key", body: "0123456789"},
		"range":             {key: "key", ranges: "bytes=2-4", body: "234", contentRange: "bytes 2-4/10"},
		"to the end":        {key: "key", ranges: "bytes=8-", body: "89", contentRange: "bytes 8-9/10"},
		"past the end":      {key: "key", ranges: "bytes=8-99", body: "89", contentRange: "bytes 8-9/10"},
		"the last":          {key: "key", ranges: "bytes=-3", body: "789", contentRange: "bytes 7-9/10"},
		"more than all":     {key: "key", ranges: "bytes=-30", body: "0123456789", contentRange: "bytes 0-9/10"},
		"none of them":      {key: "key", ranges: "bytes=10-", want: "416 InvalidRange"},
		"of nothing":        {key: "empty", ranges: "bytes=0-", want: "416 InvalidRange"},
		"two ranges":        {key: "key", ranges: "bytes=0-1,3-4", body: "0123456789"},
		"invalid":           {key: "key", ranges: "bytes=4-2", body: "0123456789"},
		"match":             {key: "key", match: tag, ranges: "bytes=0-0", body: "0", contentRange: "bytes 0-0/10"},
		"match, bare":       {key: "key", match: strings.Trim(tag, `"`), body: "0123456789"},
		"match, other":      {key: "key", match: `"other"`, want: "412 PreconditionFailed"},
		"none match":        {key: "key", none: tag, want: "304 NotModified"},
		"none match, other": {key: "key", none: `"other"`, body: "0123456789"},
	} {
		t.Run(name, func(t *testing.T) {
			out, body, err := get(t, c, one.key, func(in *s3.GetObjectInput) {
				in.Range, in.IfMatch, in.IfNoneMatch = optional(one.ranges), optional(one.match), optional(one.none)
			})
			assert.Equal(t, one.want, failure(t, err))
			assert.Equal(t, one.body, body)
			if err == nil {
				assert.Equal(t, one.contentRange, aws.ToString(out.ContentRange))
				assert.Equal(t, "bytes", *out.AcceptRanges)
			}
		})
	}
	_, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("key"), IfMatch: aws.String(`"other"`)})
	assert.Contains(t, failure(t, err), "412")
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Every algorithm is the same here and in the SDK, over HTTP in headers and over HTTPS in
// trailers; a wrong checksum is refused.
func TestChecksums(t *testing.T) {
	for scheme, start := range map[string]func(testing.TB, string) *buckettest.Server{"http": buckettest.New, "https": buckettest.NewTLS} {
		server := start(t, *bucket)
		c := client(server, 1)
		for _, algorithm := range []types.ChecksumAlgorithm{"", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"} {
			t.Run(scheme+string(algorithm), func(t *testing.T) {
				content := strings.Repeat("0123456789", 10_000)
				sent := server.Sent()
				_, err := put(t, c, "key", content, func(in *s3.PutObjectInput) { in.ChecksumAlgorithm = algorithm })
				require.NoError(t, err)
				assert.Equal(t, int64(100_000), server.Sent()-sent)
				out, body, err := get(t, c, "key", func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
				require.NoError(t, err, "the SDK verifies it")
				assert.True(t, content == body)
				assert.Nil(t, out.ContentEncoding)
				assert.Equal(t, types.ChecksumTypeFullObject, out.ChecksumType)
			})
		}
		chunked := server.Requests()[0].Header.Get("X-Amz-Content-Sha256") == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
		assert.Equal(t, scheme == "https", chunked)
	}

	server, c := start(t)
	wrong := aws.String(base64.StdEncoding.EncodeToString(make([]byte, 4)))
	bad := func(in *s3.PutObjectInput) { in.ChecksumCRC32C = wrong }
	_, err := put(t, c, "key", "content", bad)
	assert.Equal(t, "400 BadDigest", failure(t, err))
	_, err = put(t, c, "key", "content", func(in *s3.PutObjectInput) {
		in.ContentMD5 = aws.String(base64.StdEncoding.EncodeToString(make([]byte, 16)))
	})
	assert.Equal(t, "400 BadDigest", failure(t, err))
	assert.Empty(t, server.Objects())
	server.SetQuirks(buckettest.Quirks{NoChecksums: true})
	out, err := put(t, c, "key", "content", bad)
	require.NoError(t, err)
	assert.Nil(t, out.ChecksumCRC32C)
	read, _, err := get(t, c, "key")
	require.NoError(t, err)
	assert.Empty(t, read.ChecksumType)
	server.SetQuirks(buckettest.Quirks{})
	server.Put("nvme", []byte("123456789"), nil)
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("nvme"), ChecksumMode: types.ChecksumModeEnabled})
	require.NoError(t, err)
	assert.Equal(t, base64.StdEncoding.EncodeToString([]byte("\xae\x8b\x14\x86\x0a\x79\x98\x88")), *head.ChecksumCRC64NVME, "the catalogue's check value")
}

// Bodies that no client of the SDK sends.
func TestChunkedBodies(t *testing.T) {
	server, _ := start(t)
	for name, one := range map[string]struct {
		body, size, encoding string
		status               int
		stored               string
	}{
		"signed":          {"4;chunk-signature=00\r\nabcd\r\n3;chunk-signature=00\r\nefg\r\n0;chunk-signature=00\r\n\r\n", "7", "aws-chunked,gzip", 200, "abcdefg"},
		"trailer":         {"4\r\nabcd\r\n0\r\nx-amz-checksum-crc32:7YLNEQ==\r\n\r\n", "4", "aws-chunked", 200, "abcd"},
		"trailer, no end": {"4\r\nabcd\r\n0\r\nx-amz-checksum-crc32:7YLNEQ==\r\n", "4", "aws-chunked", 200, "abcd"},
		"wrong trailer":   {"4\r\nabcd\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "4", "aws-chunked", 400, ""},
		"wrong size":      {"4\r\nabcd\r\n0\r\n\r\n", "5", "aws-chunked", 400, ""},
		"no size":         {"4\r\nabcd\r\n0\r\n\r\n", "", "aws-chunked", 411, ""},
		"no chunk":        {"abcd", "4", "aws-chunked", 400, ""},
		"short":           {"4\r\nabc", "4", "aws-chunked", 400, ""},
		"long":            {"4\r\nabcdefg\r\n0\r\n\r\n", "4", "aws-chunked", 400, ""},
		"not ended":       {"4\r\nabcd\r\n", "4", "aws-chunked", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server.Remove("key")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL()+"/bucket/key", strings.NewReader(one.body))
			require.NoError(t, err)
			for header, value := range map[string]string{
				"Authorization": "AWS4-HMAC-SHA256 Credential=ID/20260101/us-east-1/s3/aws4_request", "X-Amz-Date": time.Now().UTC().Format("20060102T150405Z"),
				"Content-Encoding": one.encoding, "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "X-Amz-Decoded-Content-Length": one.size,
			} {
				r.Header.Set(header, value)
			}
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, one.status, resp.StatusCode)
			stored, _ := server.Object("key")
			assert.Equal(t, one.stored, string(stored))
		})
	}
	resp, err := http.Get(server.URL() + "/bucket/key")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 403, resp.StatusCode, "without a signature")
	assert.NotEmpty(t, resp.Header.Get("Date"))
}

// writes are those that take conditions, to the key "key". Each needs a source of
// "source" and returns its error.
var writes = map[buckettest.Op]func(t *testing.T, c *s3.Client, match, none string) error{
	buckettest.PutObject: func(t *testing.T, c *s3.Client, match, none string) error {
		_, err := put(t, c, "key", "new content", func(in *s3.PutObjectInput) { in.IfMatch, in.IfNoneMatch = optional(match), optional(none) })
		return err
	},
	buckettest.CopyObject: func(t *testing.T, c *s3.Client, match, none string) error {
		_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("key"), CopySource: aws.String("bucket/source"), IfMatch: optional(match), IfNoneMatch: optional(none)})
		return err
	},
	buckettest.CompleteMultipartUpload: func(t *testing.T, c *s3.Client, match, none string) error {
		u := begin(t, c, "key", "new ", "content")
		u.IfMatch, u.IfNoneMatch = optional(match), optional(none)
		_, err := c.CompleteMultipartUpload(t.Context(), u)
		return err
	},
	buckettest.DeleteObject: func(t *testing.T, c *s3.Client, match, _ string) error {
		_, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("key"), IfMatch: optional(match)})
		return err
	},
}

func TestConditionsOnWrites(t *testing.T) {
	tag := etagOf("old content")
	for op, write := range writes {
		deletes := op == buckettest.DeleteObject
		for _, one := range []struct {
			exists      bool
			match, none string
			quirks      buckettest.Quirks
			happened    string
			want        string
		}{
			{},
			{exists: true},
			{none: "*"},
			{exists: true, none: "*", want: "412 PreconditionFailed"},
			{exists: true, none: `"some"`, want: "501 NotImplemented"},
			{exists: true, match: tag},
			{exists: true, match: `"other"`, want: "412 PreconditionFailed"},
			{match: tag, want: "404 NoSuchKey"},
			{exists: true, match: "*"},
			{match: "*", want: "412 PreconditionFailed"},
			{exists: true, none: "*", quirks: buckettest.Quirks{NoConditions: true}, happened: "NoConditions"},
			{exists: true, match: `"other"`, quirks: buckettest.Quirks{NoConditions: true}, happened: "NoConditions"},
			{exists: true, match: `"other"`, quirks: buckettest.Quirks{IgnoresIfMatch: true}, happened: "IgnoresIfMatch"},
			{exists: true, none: "*", quirks: buckettest.Quirks{IgnoresIfMatch: true}, want: "412 PreconditionFailed"},
			{exists: true, match: tag, quirks: buckettest.Quirks{RefusesConditions: true}, happened: "RefusesConditions", want: "501 NotImplemented"},
			{exists: true, quirks: buckettest.Quirks{RefusesConditions: true}},
		} {
			if deletes && one.none != "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v/%s/%s/%s", op, one.exists, one.match, one.none, one.happened), func(t *testing.T) {
				server, c := start(t)
				server.Put("source", []byte("new content"), nil)
				if one.exists {
					server.Put("key", []byte("old content"), nil)
				}
				server.SetQuirks(one.quirks)
				assert.Equal(t, one.want, failure(t, write(t, c, one.match, one.none)))
				if one.happened != "" {
					assert.Equal(t, 1, server.Happened(one.happened))
					assert.Equal(t, 1, server.Happened(one.happened+"."+op))
				}
				content, ok := server.Object("key")
				switch {
				case one.want != "":
					assert.Equal(t, one.exists, ok)
					assert.NotEqual(t, "new content", string(content))
				case deletes:
					assert.False(t, ok)
				default:
					assert.Equal(t, "new content", string(content))
				}
			})
		}
	}
}

func TestCopyObject(t *testing.T) {
	server, c := start(t)
	server.Put("a b/ä", []byte("content"), map[string]string{"old": "1"})
	tag := etagOf("content")
	for name, one := range map[string]struct {
		key, source, match string
		directive          types.MetadataDirective
		quirks             buckettest.Quirks
		metadata           map[string]string
		want               string
	}{
		"copy":             {key: "copy", source: "bucket/a%20b/%C3%A4", metadata: map[string]string{"old": "1"}},
		"replace":          {key: "copy", source: "/bucket/a%20b/%C3%A4", directive: "REPLACE", match: tag, metadata: map[string]string{"new": "2"}},
		"itself":           {key: "a b/ä", source: "bucket/a%20b/%C3%A4", want: "400 InvalidRequest"},
		"itself, replaced": {key: "a b/ä", source: "bucket/a%20b/%C3%A4", directive: "REPLACE", metadata: map[string]string{"new": "2"}},
		"changed":          {key: "copy", source: "bucket/a%20b/%C3%A4", match: `"other"`, want: "412 PreconditionFailed"},
		"changed, ignored": {key: "copy", source: "bucket/a%20b/%C3%A4", match: `"other"`, quirks: buckettest.Quirks{IgnoresIfMatchOnRead: true}, metadata: map[string]string{"old": "1"}},
		"no source":        {key: "copy", source: "bucket/none", want: "404 NoSuchKey"},
		"no bucket":        {key: "copy", source: "elsewhere/a", want: "404 NoSuchBucket"},
		"no key":           {key: "copy", source: "bucket", want: "400 InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			server.Put("a b/ä", []byte("content"), map[string]string{"old": "1"})
			server.SetQuirks(one.quirks)
			out, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{
				Bucket: bucket, Key: &one.key, CopySource: &one.source, CopySourceIfMatch: optional(one.match),
				MetadataDirective: one.directive, Metadata: map[string]string{"new": "2"},
			})
			require.Equal(t, one.want, failure(t, err))
			if err == nil {
				assert.Equal(t, tag, *out.CopyObjectResult.ETag)
				assert.NotNil(t, out.CopyObjectResult.LastModified)
				assert.Equal(t, one.metadata, server.Metadata(one.key))
			}
		})
	}
}

func TestDeleteObjects(t *testing.T) {
	server, c := start(t)
	for _, key := range []string{"a", "b", "c", "d"} {
		server.Put(key, []byte(key), nil)
	}
	out, err := c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("a")}, {Key: aws.String("b"), ETag: aws.String(`"other"`)}, {Key: aws.String("c"), ETag: aws.String(etagOf("c"))}, {Key: aws.String("none")},
	}}})
	require.NoError(t, err)
	assert.Len(t, out.Deleted, 3)
	require.Len(t, out.Errors, 1)
	assert.Equal(t, "b", *out.Errors[0].Key)
	assert.Equal(t, "PreconditionFailed", *out.Errors[0].Code)
	assert.Equal(t, []string{"b", "d"}, server.Objects())
	out, err = c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Quiet: aws.Bool(true), Objects: []types.ObjectIdentifier{{Key: aws.String("d")}}}})
	require.NoError(t, err)
	assert.Empty(t, out.Deleted)
	_, err = c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: make([]types.ObjectIdentifier, 0)}})
	assert.Equal(t, "400 MalformedXML", failure(t, err))
}

// Lists come in pages of two, whatever is in them.
func TestListObjects(t *testing.T) {
	server, c := start(t)
	server.PageSize = 2
	for _, key := range []string{"é", "a", "B", "a/1", "a/2", "a/3/4", "b+ c/1", "b+ c/2", "z"} {
		server.Put(key, []byte(key), nil)
	}
	for name, one := range map[string]struct {
		in    s3.ListObjectsV2Input
		want  []string
		pages int
	}{
		"all":         {s3.ListObjectsV2Input{}, []string{"B", "a", "a/1", "a/2", "a/3/4", "b+ c/1", "b+ c/2", "z", "é"}, 5},
		"one by one":  {s3.ListObjectsV2Input{MaxKeys: aws.Int32(1), Prefix: aws.String("a")}, []string{"a", "a/1", "a/2", "a/3/4"}, 4},
		"no match":    {s3.ListObjectsV2Input{Prefix: aws.String("x")}, nil, 1},
		"delimiter":   {s3.ListObjectsV2Input{Delimiter: aws.String("/")}, []string{"B", "a", "a/", "b+ c/", "z", "é"}, 3},
		"directory":   {s3.ListObjectsV2Input{Delimiter: aws.String("/"), Prefix: aws.String("a/")}, []string{"a/1", "a/2", "a/3/"}, 2},
		"start after": {s3.ListObjectsV2Input{StartAfter: aws.String("a/2")}, []string{"a/3/4", "b+ c/1", "b+ c/2", "z", "é"}, 3},
		"encoded":     {s3.ListObjectsV2Input{EncodingType: "url", Delimiter: aws.String("/")}, []string{"B", "a", "a/", "b%2B+c/", "z", "%C3%A9"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			one.in.Bucket = bucket
			var got []string
			pages := 0
			for p := s3.NewListObjectsV2Paginator(c, &one.in); p.HasMorePages(); pages++ {
				out, err := p.NextPage(t.Context())
				require.NoError(t, err)
				assert.Equal(t, len(out.Contents)+len(out.CommonPrefixes), int(*out.KeyCount))
				for _, o := range out.Contents {
					got = append(got, *o.Key)
					assert.NotEmpty(t, *o.ETag)
					assert.Positive(t, *o.Size)
				}
				for _, p := range out.CommonPrefixes {
					got = append(got, *p.Prefix)
				}
			}
			assert.ElementsMatch(t, one.want, got)
			if one.in.Delimiter == nil {
				assert.Equal(t, one.want, got)
			}
			assert.Equal(t, one.pages, pages)
		})
	}
	none, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(0)})
	require.NoError(t, err)
	assert.Empty(t, none.Contents)
	assert.False(t, *none.IsTruncated)
	_, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, ContinuationToken: aws.String("?")})
	assert.Equal(t, "400 InvalidArgument", failure(t, err))
	_, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, EncodingType: "other"})
	assert.Equal(t, "400 InvalidArgument", failure(t, err))
}

func create(t *testing.T, c *s3.Client, key string, change ...func(*s3.CreateMultipartUploadInput)) *string {
	t.Helper()
	in := &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &key}
	for _, f := range change {
		f(in)
	}
	out, err := c.CreateMultipartUpload(t.Context(), in)
	require.NoError(t, err)
	return out.UploadId
}

func uploadPart(t *testing.T, c *s3.Client, key string, id *string, n int32, content string, change ...func(*s3.UploadPartInput)) (types.CompletedPart, error) {
	t.Helper()
	in := &s3.UploadPartInput{Bucket: bucket, Key: &key, UploadId: id, PartNumber: &n, Body: strings.NewReader(content)}
	for _, f := range change {
		f(in)
	}
	out, err := c.UploadPart(t.Context(), in)
	if err != nil {
		return types.CompletedPart{}, err
	}
	return types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumSHA256: out.ChecksumSHA256}, nil
}

// begin uploads parts and returns the request that completes them.
func begin(t *testing.T, c *s3.Client, key string, parts ...string) *s3.CompleteMultipartUploadInput {
	t.Helper()
	in := &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: &key, UploadId: create(t, c, key), MultipartUpload: &types.CompletedMultipartUpload{}}
	for i, content := range parts {
		p, err := uploadPart(t, c, key, in.UploadId, int32(i+1), content)
		require.NoError(t, err)
		in.MultipartUpload.Parts = append(in.MultipartUpload.Parts, p)
	}
	return in
}

func TestMultipartUpload(t *testing.T) {
	server, c := start(t)
	server.Put("source", []byte("0123456789"), nil)
	server.Put("small", []byte("0123"), nil)
	id := create(t, c, "key", func(in *s3.CreateMultipartUploadInput) {
		in.Metadata = map[string]string{"Name": "value"}
		in.ContentType = aws.String("application/x-tar")
	})
	assert.Equal(t, 1, server.Uploads())
	first, err := uploadPart(t, c, "key", id, 2, "abcd")
	require.NoError(t, err)
	assert.Equal(t, etagOf("abcd"), *first.ETag)
	copied := func(n int32, source, ranges, match string) (*s3.UploadPartCopyOutput, error) {
		return c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
			Bucket: bucket, Key: aws.String("key"), UploadId: id, PartNumber: &n,
			CopySource: aws.String("bucket/" + source), CopySourceRange: optional(ranges), CopySourceIfMatch: optional(match),
		})
	}
	for _, one := range []struct{ source, ranges, match, want string }{
		{"source", "bytes=2-10", "", "400 InvalidArgument"},
		{"source", "bytes=2-", "", "400 InvalidArgument"},
		{"source", "bytes=2-3", `"other"`, "412 PreconditionFailed"},
		{"small", "bytes=2-3", "", "400 InvalidRequest"},
		{"small", "", "", ""},
		{"none", "", "", "404 NoSuchKey"},
	} {
		_, err := copied(9, one.source, one.ranges, one.match)
		assert.Equal(t, one.want, failure(t, err), one)
	}
	second, err := copied(10000, "source", "bytes=2-9", etagOf("0123456789"))
	require.NoError(t, err)
	assert.Equal(t, etagOf("23456789"), *second.CopyPartResult.ETag)
	_, err = uploadPart(t, c, "key", id, 10001, "abcd")
	assert.Equal(t, "400 InvalidArgument", failure(t, err))
	_, err = uploadPart(t, c, "other", id, 1, "abcd")
	assert.Equal(t, "404 NoSuchUpload", failure(t, err))
	_, err = uploadPart(t, c, "key", id, 1, "abcd", func(in *s3.UploadPartInput) { in.ChecksumCRC32 = aws.String("AAAAAA==") })
	assert.Equal(t, "400 BadDigest", failure(t, err))
	_, err = uploadPart(t, c, "key", id, 1, "abc")
	require.NoError(t, err)
	assert.NotContains(t, server.Objects(), "key")

	part := func(n int32, etag string) types.CompletedPart {
		return types.CompletedPart{PartNumber: &n, ETag: &etag}
	}
	complete := func(parts ...types.CompletedPart) (*s3.CompleteMultipartUploadOutput, error) {
		return c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: bucket, Key: aws.String("key"), UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
	}
	last := part(10000, etagOf("23456789"))
	for _, one := range []struct {
		want  string
		parts []types.CompletedPart
	}{
		{"400 MalformedXML", nil},
		{"400 InvalidPartOrder", []types.CompletedPart{last, first}},
		{"400 InvalidPartOrder", []types.CompletedPart{first, first}},
		{"400 InvalidPart", []types.CompletedPart{first, part(10, etagOf("abcd")), last}},
		{"400 InvalidPart", []types.CompletedPart{part(2, etagOf("other")), last}},
		{"400 EntityTooSmall", []types.CompletedPart{part(1, etagOf("abc")), last}},
	} {
		_, err := complete(one.parts...)
		assert.Equal(t, one.want, failure(t, err))
	}
	out, err := complete(first, last)
	require.NoError(t, err)
	sums := md5.Sum(append(sum("abcd"), sum("23456789")...))
	assert.Equal(t, fmt.Sprintf(`"%x-2"`, sums), *out.ETag)
	assert.Equal(t, *out.ETag, server.ETag("key"))
	content, _ := server.Object("key")
	assert.Equal(t, "abcd23456789", string(content))
	assert.Equal(t, map[string]string{"name": "value"}, server.Metadata("key"))
	assert.Zero(t, server.Uploads())
	read, _, err := get(t, c, "key")
	require.NoError(t, err)
	assert.Equal(t, "application/x-tar", *read.ContentType)

	_, err = complete(first, last)
	assert.Equal(t, "404 NoSuchUpload", failure(t, err))
	server.SetQuirks(buckettest.Quirks{CompletedAgain: true})
	again, err := complete(first, last)
	require.NoError(t, err)
	assert.Equal(t, *out.ETag, *again.ETag)
	assert.Equal(t, 1, server.Happened("CompletedAgain"))

	id = create(t, c, "key")
	abort := &s3.AbortMultipartUploadInput{Bucket: bucket, Key: aws.String("key"), UploadId: id}
	_, err = c.AbortMultipartUpload(t.Context(), abort)
	require.NoError(t, err)
	_, err = c.AbortMultipartUpload(t.Context(), abort)
	assert.Equal(t, "404 NoSuchUpload", failure(t, err))
	_, err = c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: bucket, Key: aws.String("key"), UploadId: id})
	assert.Equal(t, "404 NoSuchUpload", failure(t, err))
}

func sum(s string) []byte {
	m := md5.Sum([]byte(s))
	return m[:]
}

func TestMultipartChecksums(t *testing.T) {
	server, c := start(t)
	for name, one := range map[string]struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
		bare      bool // the parts are named without their checksums
		size      int64
		nvme      string // of the object, stated on completion
		part      types.ChecksumAlgorithm
		want      string
		got       types.ChecksumType
	}{
		"none":             {got: "FULL_OBJECT"},
		"composite":        {algorithm: "CRC32", got: "COMPOSITE"},
		"composite, bare":  {algorithm: "CRC32", bare: true, want: "400 InvalidRequest"},
		"full":             {algorithm: "CRC32", kind: "FULL_OBJECT", bare: true, got: "FULL_OBJECT"},
		"SHA256":           {algorithm: "SHA256", part: "SHA256", got: "COMPOSITE"},
		"nvme":             {algorithm: "CRC64NVME", part: "CRC64NVME", nvme: "rosUhgp5mIg=", size: 9, got: "FULL_OBJECT"},
		"nvme, wrong":      {algorithm: "CRC64NVME", part: "CRC64NVME", nvme: "AAAAAAAAAAA=", want: "400 BadDigest"},
		"wrong size":       {size: 8, want: "400 InvalidRequest"},
		"another for part": {algorithm: "CRC64NVME", part: "CRC32", want: "part: 400 InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			id := create(t, c, "key", func(in *s3.CreateMultipartUploadInput) {
				in.ChecksumAlgorithm, in.ChecksumType = one.algorithm, one.kind
			})
			var parts []types.CompletedPart
			for i, content := range []string{"12345", "6789"} {
				p, err := uploadPart(t, c, "key", id, int32(i+1), content, func(in *s3.UploadPartInput) { in.ChecksumAlgorithm = one.part })
				if want, ok := strings.CutPrefix(one.want, "part: "); ok {
					assert.Equal(t, want, failure(t, err))
					return
				}
				require.NoError(t, err)
				if one.bare {
					p.ChecksumCRC32 = nil
				}
				parts = append(parts, p)
			}
			in := &s3.CompleteMultipartUploadInput{
				Bucket: bucket, Key: aws.String("key"), UploadId: id, ChecksumCRC64NVME: optional(one.nvme), ChecksumType: one.kind,
				MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
			}
			if one.size > 0 {
				in.MpuObjectSize = &one.size
			}
			out, err := c.CompleteMultipartUpload(t.Context(), in)
			require.Equal(t, one.want, failure(t, err))
			if err != nil {
				return
			}
			assert.Equal(t, one.got, out.ChecksumType)
			_, body, err := get(t, c, "key", func(in *s3.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
			require.NoError(t, err)
			assert.Equal(t, "123456789", body)
		})
	}
	for _, one := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
	}{{"CRC64NVME", "COMPOSITE"}, {"SHA256", "FULL_OBJECT"}, {"", "FULL_OBJECT"}, {"MD6", ""}} {
		_, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("key"), ChecksumAlgorithm: one.algorithm, ChecksumType: one.kind})
		assert.Equal(t, "400 InvalidRequest", failure(t, err), one)
	}
	server.SetQuirks(buckettest.Quirks{NoChecksums: true})
	out, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("key"), ChecksumAlgorithm: "SHA256"})
	require.NoError(t, err)
	assert.Empty(t, out.ChecksumAlgorithm)
}

func TestListsOfUploads(t *testing.T) {
	server, c := start(t)
	server.PageSize = 2
	var ids []string
	for _, key := range []string{"b", "a/1", "b", "c", "a/2", "b"} {
		ids = append(ids, *create(t, c, key))
	}
	server.Age(24 * time.Hour)
	for name, one := range map[string]struct {
		in   s3.ListMultipartUploadsInput
		want []string
	}{
		"all":       {s3.ListMultipartUploadsInput{}, []string{ids[1], ids[4], ids[0], ids[2], ids[5], ids[3]}},
		"prefix":    {s3.ListMultipartUploadsInput{Prefix: aws.String("a/")}, []string{ids[1], ids[4]}},
		"delimiter": {s3.ListMultipartUploadsInput{Delimiter: aws.String("/"), EncodingType: "url"}, []string{"a/", ids[0], ids[2], ids[5], ids[3]}},
		"after key": {s3.ListMultipartUploadsInput{KeyMarker: aws.String("b")}, []string{ids[3]}},
	} {
		t.Run(name, func(t *testing.T) {
			one.in.Bucket = bucket
			var got []string
			for p := s3.NewListMultipartUploadsPaginator(c, &one.in); p.HasMorePages(); {
				out, err := p.NextPage(t.Context())
				require.NoError(t, err)
				assert.LessOrEqual(t, len(out.Uploads)+len(out.CommonPrefixes), 2)
				for _, p := range out.CommonPrefixes {
					got = append(got, *p.Prefix)
				}
				for _, u := range out.Uploads {
					got = append(got, *u.UploadId)
					assert.WithinDuration(t, time.Now().Add(-24*time.Hour), *u.Initiated, time.Minute)
				}
			}
			assert.Equal(t, one.want, got)
		})
	}

	for _, n := range []int32{7, 3, 10000, 1, 2} {
		_, err := uploadPart(t, c, "c", &ids[3], n, fmt.Sprint("part ", n))
		require.NoError(t, err)
	}
	var got []int32
	pages := 0
	for p := s3.NewListPartsPaginator(c, &s3.ListPartsInput{Bucket: bucket, Key: aws.String("c"), UploadId: &ids[3]}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		require.NoError(t, err)
		for _, p := range out.Parts {
			got = append(got, *p.PartNumber)
			content := fmt.Sprint("part ", *p.PartNumber)
			assert.Equal(t, etagOf(content), *p.ETag)
			assert.Equal(t, int64(len(content)), *p.Size)
			assert.NotEmpty(t, *p.ChecksumCRC32)
		}
	}
	assert.Equal(t, []int32{1, 2, 3, 7, 10000}, got)
	assert.Equal(t, 3, pages)
}

// Each fault that is limited to a number of times shows so often, and then no more.
func TestFaults(t *testing.T) {
	twice := map[buckettest.Op]int{buckettest.PutObject: 2}
	for name, one := range map[string]struct {
		quirks buckettest.Quirks
		want   string
		stored bool // all the same
	}{
		"SlowDown":      {buckettest.Quirks{SlowDown: twice, RetryAfter: 7}, "503 SlowDown", false},
		"InternalError": {buckettest.Quirks{InternalError: twice}, "500 InternalError", false},
		"LoseAnswer":    {buckettest.Quirks{LoseAnswer: twice}, "no answer", true},
		"CutPut":        {buckettest.Quirks{CutPut: 2, CutAfter: 3}, "no answer", false},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := start(t)
			server.SetQuirks(one.quirks)
			server.Put("key", []byte("old"), nil)
			_, _, err := get(t, c, "key")
			require.NoError(t, err, "other operations are spared")
			for i := range 2 {
				_, err := put(t, c, "key", "content")
				assert.Equal(t, one.want, failure(t, err))
				content, _ := server.Object("key")
				assert.Equal(t, one.stored, string(content) == "content")
				var response *awshttp.ResponseError
				if one.quirks.RetryAfter > 0 && assert.ErrorAs(t, err, &response) {
					assert.Equal(t, "7", response.Response.Header.Get("Retry-After"))
				}
				assert.Equal(t, i+1, server.Happened(name))
			}
			_, err = put(t, c, "key", "content")
			require.NoError(t, err)
			assert.Equal(t, 2, server.Happened(name))
			assert.Equal(t, 2, server.Happened(name+".PutObject"))
			server.SetQuirks(one.quirks)
			_, err = put(t, client(server, 3), "key", "content")
			require.NoError(t, err, "the SDK tries again")
			requests := server.Requests()
			if one.want == "no answer" {
				assert.Zero(t, requests[1].Status)
			}
			if name == "CutPut" {
				assert.Equal(t, int64(3), requests[1].Uploaded)
				assert.Equal(t, int64(2*(3+3+7)), server.Sent())
			} else {
				assert.Equal(t, int64(6*7), server.Sent())
			}
		})
	}
}

// A predicate chooses among requests of one operation; negative is without end.
func TestFaultsOfSomeParts(t *testing.T) {
	server, c := start(t)
	id := create(t, c, "key")
	second := func(r buckettest.Request) bool { return r.Query.Get("partNumber") == "2" }
	for name, quirks := range map[string]buckettest.Quirks{
		"CutPart":       {Only: second, CutPart: -1},
		"LoseAnswer":    {Only: second, LoseAnswer: map[buckettest.Op]int{buckettest.AnyOp: -1}},
		"InternalError": {Only: second, InternalError: map[buckettest.Op]int{buckettest.UploadPart: -1, buckettest.AnyOp: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			server.SetQuirks(quirks)
			for range 3 {
				_, err := uploadPart(t, c, "key", id, 1, "content")
				require.NoError(t, err)
				_, err = uploadPart(t, c, "key", id, 2, "content")
				require.Error(t, err)
			}
			assert.Equal(t, 3, server.Happened(name+".UploadPart"))
		})
	}
	// The answer arrives although the client still writes a body that nobody wants.
	server.SetQuirks(buckettest.Quirks{SlowDown: map[buckettest.Op]int{buckettest.UploadPart: -1}})
	for _, size := range []int{1 << 20, 3 << 20} {
		_, err := uploadPart(t, c, "key", id, 1, strings.Repeat("a", size))
		assert.Equal(t, "503 SlowDown", failure(t, err), err)
	}
}

func TestErrorIn200(t *testing.T) {
	server, c := start(t)
	in := begin(t, c, "key", "content")
	server.SetQuirks(buckettest.Quirks{ErrorIn200: map[buckettest.Op]int{buckettest.AnyOp: 1}})
	_, err := c.CompleteMultipartUpload(t.Context(), in)
	assert.Contains(t, failure(t, err), "InternalError")
	assert.Equal(t, 1, server.Happened("ErrorIn200"))
	assert.Equal(t, 1, server.Uploads())
	_, err = c.CompleteMultipartUpload(t.Context(), in)
	require.NoError(t, err)
}

// A request to complete an upload whose answer is lost finds it done when it comes again.
func TestLostCompletion(t *testing.T) {
	lost := buckettest.Quirks{LoseAnswer: map[buckettest.Op]int{buckettest.CompleteMultipartUpload: 1}}
	for _, again := range []bool{false, true} {
		server, c := start(t)
		in := begin(t, c, "key", "content")
		lost.CompletedAgain = again
		server.SetQuirks(lost)
		_, err := client(server, 2).CompleteMultipartUpload(t.Context(), in)
		if again {
			require.NoError(t, err)
		} else {
			assert.Equal(t, "404 NoSuchUpload", failure(t, err))
		}
		assert.Equal(t, []string{"key"}, server.Objects())
	}
}

func TestConflicts(t *testing.T) {
	for op, write := range writes {
		if op != buckettest.PutObject && op != buckettest.CompleteMultipartUpload {
			continue
		}
		server, c := start(t)
		server.SetQuirks(buckettest.Quirks{ConflictOnComplete: 1, ConflictOnPut: 1, ConflictEndsUpload: true})
		require.NoError(t, write(t, c, "", ""), "without a condition")
		server.Remove("key")
		assert.Equal(t, "409 ConditionalRequestConflict", failure(t, write(t, c, "", "*")), op)
		assert.Empty(t, server.Objects())
		assert.Zero(t, server.Uploads())
		require.NoError(t, write(t, c, "", "*"))
	}
	server, c := start(t)
	server.SetQuirks(buckettest.Quirks{ConflictOnComplete: 1})
	in := begin(t, c, "key", "content")
	in.IfNoneMatch = aws.String("*")
	_, err := c.CompleteMultipartUpload(t.Context(), in)
	assert.Equal(t, "409 ConditionalRequestConflict", failure(t, err))
	_, err = c.CompleteMultipartUpload(t.Context(), in)
	require.NoError(t, err, "it was pending still")
}

func TestRefusals(t *testing.T) {
	for name, one := range map[string]struct {
		quirks buckettest.Quirks
		get    string
		head   string
		other  string // of another operation
	}{
		"Denied":      {buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.GetObject: true, buckettest.HeadObject: true}}, "403 AccessDenied", "403 Forbidden", ""},
		"NoBucket":    {buckettest.Quirks{NoBucket: true}, "404 NoSuchBucket", "404 NotFound", "404 NoSuchBucket"},
		"WrongRegion": {buckettest.Quirks{WrongRegion: "eu-central-1"}, "301 PermanentRedirect", "301 ", "301 PermanentRedirect"},
		"WrongRegion, malformed": {
			buckettest.Quirks{WrongRegion: "eu-central-1", WrongRegionMalformed: true},
			"400 AuthorizationHeaderMalformed", "400 BadRequest", "400 AuthorizationHeaderMalformed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := start(t)
			server.Put("key", []byte("content"), nil)
			server.SetQuirks(one.quirks)
			_, _, err := get(t, c, "key")
			assert.Equal(t, one.get, failure(t, err))
			_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("key")})
			assert.Contains(t, failure(t, err), one.head)
			var response *awshttp.ResponseError
			if assert.ErrorAs(t, err, &response) && one.quirks.WrongRegion != "" {
				assert.Equal(t, "eu-central-1", response.Response.Header.Get("X-Amz-Bucket-Region"))
			}
			_, err = put(t, c, "key", "content")
			assert.Equal(t, one.other, failure(t, err))
			quirk, _, _ := strings.Cut(name, ",")
			assert.Equal(t, 1, server.Happened(quirk+".GetObject"))
			if one.quirks.WrongRegion != "" {
				config := server.Config()
				config.Region = one.quirks.WrongRegion
				_, _, err = get(t, s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true }), "key")
				require.NoError(t, err)
			}
		})
	}
	server, c := start(t)
	_, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("elsewhere")})
	assert.Equal(t, "404 NotFound", failure(t, err))
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.AnyOp: true}})
	_, err = put(t, c, "key", "content")
	assert.Equal(t, "403 AccessDenied", failure(t, err))
}

func TestExpiredToken(t *testing.T) {
	server, _ := start(t)
	server.SetQuirks(buckettest.Quirks{ExpireAfter: 2})
	config := server.Config()
	id := "first"
	config.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: "secret", SessionToken: "token"}, nil
	})
	c := s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle, o.Retryer = true, aws.NopRetryer{} })
	var got []string
	for range 4 {
		_, err := put(t, c, "key", "content")
		got = append(got, failure(t, err))
	}
	assert.Equal(t, []string{"", "", "400 ExpiredToken", "400 ExpiredToken"}, got)
	id = "second"
	_, err := put(t, c, "key", "content")
	require.NoError(t, err)
	assert.Equal(t, 2, server.Happened("ExpireAfter"))
}

// The SDK learns the time from an answer that refuses its own.
func TestClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour, 14 * time.Minute} {
		server, once := start(t)
		server.SetQuirks(buckettest.Quirks{ClockSkew: skew})
		_, err := put(t, once, "key", "content")
		want := ""
		if skew.Abs() > 15*time.Minute {
			want = "403 RequestTimeTooSkewed"
		}
		assert.Equal(t, want, failure(t, err))
		c := client(server, 3)
		_, err = put(t, c, "key", "content")
		require.NoError(t, err)
		head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("key")})
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(skew), *head.LastModified, time.Minute)
	}
}

func TestOpaqueETags(t *testing.T) {
	server, c := start(t)
	server.SetQuirks(buckettest.Quirks{OpaqueETags: true})
	first, err := put(t, c, "key", "content")
	require.NoError(t, err)
	assert.NotEqual(t, etagOf("content"), *first.ETag)
	second, err := put(t, c, "key", "content")
	require.NoError(t, err)
	assert.NotEqual(t, *first.ETag, *second.ETag)
	_, err = c.CompleteMultipartUpload(t.Context(), begin(t, c, "key", "some", "parts"))
	require.NoError(t, err)
	assert.Regexp(t, `^"[0-9a-f]{32}-2"$`, server.ETag("key"))
}

func TestIgnoresIfMatchOnRead(t *testing.T) {
	server, c := start(t)
	server.Put("key", []byte("content"), nil)
	server.SetQuirks(buckettest.Quirks{IgnoresIfMatchOnRead: true})
	_, body, err := get(t, c, "key", func(in *s3.GetObjectInput) { in.IfMatch = aws.String(`"other"`) })
	require.NoError(t, err)
	assert.Equal(t, "content", body)
	assert.Equal(t, 1, server.Happened("IgnoresIfMatchOnRead"))
}

func TestCutGet(t *testing.T) {
	server, c := start(t)
	server.Put("key", []byte("0123456789"), nil)
	server.SetQuirks(buckettest.Quirks{CutGet: 4, CutGetCount: 2})
	_, body, err := get(t, c, "key", func(in *s3.GetObjectInput) { in.Range = aws.String("bytes=0-3") })
	require.NoError(t, err)
	assert.Equal(t, "0123", body)
	for range 2 {
		_, body, err := get(t, c, "key")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "0123", body)
	}
	_, _, err = get(t, c, "key")
	require.NoError(t, err)
	assert.Equal(t, 2, server.Happened("CutGet"))
}

// The object is another one when the second request comes.
func TestReplace(t *testing.T) {
	server, c := start(t)
	server.Put("key", []byte("old"), nil)
	var called []string
	server.SetQuirks(buckettest.Quirks{Replace: func(op, key string) {
		called = append(called, op+" "+key)
		if op == buckettest.GetObject {
			server.Put("key", []byte("new"), nil)
		}
	}})
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("key")})
	require.NoError(t, err)
	_, _, err = get(t, c, "key", func(in *s3.GetObjectInput) { in.IfMatch = head.ETag })
	assert.Equal(t, "412 PreconditionFailed", failure(t, err))
	assert.Equal(t, []string{"HeadObject key", "GetObject key"}, called)
}

// A server that limits what it moves ends at once all the same.
func TestCloseWhileLimited(t *testing.T) {
	server, c := start(t)
	server.Put("key", make([]byte, 1000), nil)
	begun := make(chan buckettest.Request, 10_000)
	server.SetQuirks(buckettest.Quirks{Rate: func(r buckettest.Request) int64 { begun <- r; return 1 }})
	failed := make(chan error)
	go func() {
		_, _, err := get(t, c, "key")
		failed <- err
	}()
	go func() {
		_, err := put(t, c, "other", "content")
		failed <- err
	}()
	ops := []string{(<-begun).Op, (<-begun).Op}
	assert.Subset(t, []string{"GetObject", "PutObject"}, ops)
	server.Close()
	require.Error(t, <-failed)
	require.Error(t, <-failed)
}

func TestEnv(t *testing.T) {
	server, _ := start(t)
	assert.Equal(t, map[string]string{
		"AWS_ENDPOINT_URL_S3": server.URL(), "AWS_REGION": buckettest.Region,
		"AWS_ACCESS_KEY_ID": buckettest.AccessKeyID, "AWS_SECRET_ACCESS_KEY": buckettest.SecretAccessKey,
	}, server.Env())
}

// Parts come at the same time.
func TestConcurrentParts(t *testing.T) {
	server, c := start(t)
	id := create(t, c, "key")
	failed := make(chan error, 16)
	for i := range 16 {
		go func() {
			_, err := uploadPart(t, c, "key", id, int32(i+1), string(bytes.Repeat([]byte{'a' + byte(i)}, 10_000)))
			failed <- err
		}()
	}
	for range 16 {
		require.NoError(t, <-failed)
	}
	assert.Equal(t, int64(160_000), server.Sent())
	out, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: bucket, Key: aws.String("key"), UploadId: id})
	require.NoError(t, err)
	assert.Len(t, out.Parts, 16)
}
