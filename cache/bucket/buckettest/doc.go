// Package buckettest is a bucket of S3 in process, for tests: it keeps objects and
// multipart uploads in memory and serves them over real HTTP on loopback, with
// conditions and checksums as S3 documents them, and with faults that S3 and servers
// like it have but do not show on demand. Each fault is a named field of [Quirks].
//
//	server := buckettest.New(t, "bucket")
//	server.Put("key", content, nil)
//	server.SetQuirks(buckettest.Quirks{LoseAnswer: map[buckettest.Op]int{buckettest.UploadPart: 1}})
//	client := s3.NewFromConfig(server.Config(), func(o *s3.Options) { o.UsePathStyle = true })
//
// It imports none of the SDK's clients, so that a mistake in one of them is not made
// here too. It checks no signatures; of a credential it looks at the access key ID and
// the region. Versions, encryption, tags and access control lists are absent.
//
// References: https://docs.aws.amazon.com/AmazonS3/latest/API/ for each operation and its
// errors, https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html.
package buckettest
