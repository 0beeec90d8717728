package buckettest

import "time"

// An Op is an operation by its name in the S3 API.
type Op = string

// The operations that a [Server] knows. Others are answered with 501 NotImplemented.
const (
	HeadBucket              Op = "HeadBucket"
	HeadObject              Op = "HeadObject"
	GetObject               Op = "GetObject"
	PutObject               Op = "PutObject"
	CopyObject              Op = "CopyObject"
	DeleteObject            Op = "DeleteObject"
	DeleteObjects           Op = "DeleteObjects"
	ListObjectsV2           Op = "ListObjectsV2"
	CreateMultipartUpload   Op = "CreateMultipartUpload"
	UploadPart              Op = "UploadPart"
	UploadPartCopy          Op = "UploadPartCopy"
	ListParts               Op = "ListParts"
	ListMultipartUploads    Op = "ListMultipartUploads"
	CompleteMultipartUpload Op = "CompleteMultipartUpload"
	AbortMultipartUpload    Op = "AbortMultipartUpload"
	GetObjectTagging        Op = "GetObjectTagging"

	// AnyOp stands for each of them in the maps of [Quirks].
	AnyOp Op = "*"
)

// Quirks are what a [Server] does wrong, or does as only some servers do. The zero value
// is S3 on a good day.
//
// A quirk that is a number of times, also one in a map, shows for the next so many
// requests after [Server.SetQuirks]; negative means every one. A quirk with a field
// ...Count beside it shows so many times; 0 means every time. [Server.Happened] returns
// how often a quirk did.
type Quirks struct {
	// Only, when not nil, spares the requests for which it returns false from SlowDown,
	// InternalError, ErrorIn200, CutPart, CutPut, CutGet and LoseAnswer.
	Only func(Request) bool `json:"-"`
	// Replace, when not nil, is called before each request is handled, after it was
	// recorded: so a test can replace an object between two requests of a client.
	// It may call any method of the server but Close.
	Replace func(op Op, key string) `json:"-"`

	// SlowDown answers with 503 SlowDown, as for too many requests.
	SlowDown map[Op]int
	// RetryAfter is sent along with it, in seconds, when not 0.
	RetryAfter int
	// InternalError answers with 500 InternalError. Nothing was carried out.
	InternalError map[Op]int
	// ErrorIn200 answers CopyObject, UploadPartCopy and CompleteMultipartUpload with 200
	// and InternalError in the body, as S3 does when it fails after it began to answer.
	// Nothing was carried out.
	ErrorIn200 map[Op]int
	// LoseAnswer carries a request out and closes the connection in place of an answer.
	// For requests without a body an [net/http.Transport] may then ask again by itself.
	LoseAnswer map[Op]int

	// CutPart closes the connection in the middle of the body of an UploadPart, so many
	// times; CutPut in that of a PutObject.
	CutPart, CutPut int
	// CutAfter is after how many bytes these do. Default, also if the body has fewer: half of it.
	CutAfter int64
	// CutGet closes the connection after so many bytes of an answer to GetObject, when
	// not 0. Shorter answers are spared.
	CutGet      int64
	CutGetCount int

	// GetBytesPerSecond limits the body of each answer to GetObject, PutBytesPerSecond
	// that of each request; 0 is no limit. A connection has one of them at a time.
	GetBytesPerSecond, PutBytesPerSecond int64
	// Rate, when not nil, returns the limit in place of both, so that requests differ
	// and a limit changes. It is called before each piece.
	Rate func(Request) int64 `json:"-"`

	// ConflictOnComplete answers a CompleteMultipartUpload that has a condition with 409
	// ConditionalRequestConflict, so many times; ConflictOnPut a PutObject that has one.
	ConflictOnComplete, ConflictOnPut int
	// ConflictEndsUpload removes the upload with such an answer. S3's documentation asks
	// for a new one.
	ConflictEndsUpload bool
	// CompletedAgain answers a CompleteMultipartUpload that was carried out already like
	// the first time, as S3 does for a while. By its documentation it is NoSuchUpload.
	CompletedAgain bool

	// Denied answers with 403 AccessDenied.
	Denied map[Op]bool
	// ExpireAfter is for how many requests an access key ID is good, when not 0; others
	// are answered with 400 ExpiredToken.
	ExpireAfter int
	// ClockSkew is how far the server's clock is ahead of the test's. A request whose
	// x-amz-date differs by more than 15 minutes from the server's is answered with 403
	// RequestTimeTooSkewed; Date tells the server's time.
	ClockSkew time.Duration
	// NoBucket answers with 404 NoSuchBucket.
	NoBucket bool
	// WrongRegion, when not empty, is the region of the bucket. Requests that are signed for
	// another are answered with 301 PermanentRedirect and x-amz-bucket-region.
	WrongRegion string
	// WrongRegionMalformed makes that 400 AuthorizationHeaderMalformed, as a regional
	// endpoint answers.
	WrongRegionMalformed bool

	// NoConditions ignores If-None-Match and If-Match on writes, which are PutObject,
	// CopyObject, CompleteMultipartUpload, DeleteObject and DeleteObjects. Happened counts
	// the requests that had one.
	NoConditions bool
	// IgnoresIfMatch ignores only If-Match on writes.
	IgnoresIfMatch bool
	// RefusesConditions answers writes that have one with 501 NotImplemented.
	RefusesConditions bool
	// IgnoresIfMatchOnRead ignores If-Match of GetObject and HeadObject, and
	// x-amz-copy-source-if-match of CopyObject and UploadPartCopy.
	IgnoresIfMatchOnRead bool
	// OpaqueETags makes ETags of objects and parts that are no MD5, as with SSE-KMS.
	// Two objects of the same content have different ones.
	OpaqueETags bool
	// NoChecksums ignores x-amz-checksum headers and trailers and answers with none.
	NoChecksums bool
}
