// Package bucket keeps container images as tarballs in a bucket of S3, or of a server that speaks
// its API: what package cache does for a directory, with the same names, options, outcomes and
// errors.
//
//	b, err := bucket.Open(ctx, "s3://BUCKET/PREFIX", nil)
//	result, err := b.Stock(ctx, "py3.12_main.tar", ref, remote, nil) // from a registry, without a local file
//	stocked, err := b.Get(ctx, "py3.12_main.tar")                    // for package loader, or server
//
// The objects are the tarballs, byte for byte as in a directory:
//
//	aws s3 cp s3://BUCKET/PREFIX/py3.12_main.tar - | docker load
//
// # How an image is stored
//
// Every offset of a tarball is known before its first byte, so that a multipart upload is the
// tarball. Ranges of the layers are fetched into parts in memory, hashed in order, and sent
// while the next ones come: by each part's checksum the server verifies what it got. Memory is
// bounded, see [Options.Memory]; the local disk is not used. Only when every layer is verified
// the upload is completed, and the object appears, whole.
//
// Layers that another object directly below the prefix has are copied by the server, if that
// object was stored by this package less than [Options.TrustFor] ago; up to 5 MiB of each
// connected range come to this process and go back, since a part has no less.
//
// # What is promised
//
// A name without a leading dot that this package has stored is a complete tarball whose every
// layer was hashed by its writer, or copied from one of which that is so. An upload is completed on
// the condition that the name has what it had when it was looked at (If-None-Match, If-Match);
// so an older build run never replaces a newer one's, with any number of writers. Whether the
// server keeps such conditions is found out before the first upload of a [Bucket] is
// completed, see [ErrNoConditions].
//
// Who may write to the bucket can store anything under any name. Package loader verifies what it
// loads.
//
// # Other objects
//
// Names with a leading dot:
//
//   - .<tarball>.<digest>.upload records an upload that is going on: its number, up to where
//     its parts are hashed, and the state of sha256 there. The next attempt for the same image
//     with the same provenance goes on with it; one whose writer is another process that makes
//     progress is waited for. It is removed at the end, and written about once for each 32 MiB.
//   - .<tarball>.used is empty. Its time is when the tarball was last found unchanged, or
//     touched: recorded once a day, which costs one request more than the one that looks at an
//     unchanged tarball. In place of [Bucket.Prune] a rule of the bucket's lifecycle that
//     expires objects by age can be used, if images are stocked again when they are needed.
//
// A rule AbortIncompleteMultipartUpload removes uploads that were given up; [Bucket.Sweep] does
// too.
//
// # Requests
//
// An unchanged tarball costs one, HeadObject: the object's metadata says what it is. When a
// newer build run has the same image the server copies the object onto itself, with the new run in
// its metadata: one request for each 512 MiB, and three. Encryption, storage class and tags stay
// as they were, unless [Options] say otherwise; an object that has tags costs one request more. A new tarball costs one request for
// each 8 MiB or more that are sent, one for each 512 MiB that are copied, one for each object of
// the prefix whose beginning this Bucket has not read yet, and some ten.
//
// # Permissions
//
// A writer needs s3:GetObject, s3:PutObject, s3:AbortMultipartUpload, s3:ListMultipartUploadParts
// and s3:DeleteObject for the objects, s3:ListBucket and for Sweep
// s3:ListBucketMultipartUploads for the bucket; a reader s3:GetObject and s3:ListBucket. Without
// s3:ListBucket S3 answers 403 for an object that is not there. ACLs are not used. With
// [Options.Tags] a writer needs s3:PutObjectTagging too; for objects that have tags which the options
// do not say, s3:GetObjectTagging.
//
// # Concurrency
//
// A [Bucket] is safe for concurrent use.
package bucket
