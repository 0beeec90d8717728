package buckettest

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// What [Server.Config] and [Server.Env] say. The server takes any access key ID.
const (
	Region          = "us-east-1"
	AccessKeyID     = "AKIDBUCKETTEST"
	SecretAccessKey = "secret-of-buckettest"
)

// A Server is S3 with one bucket, on a port of 127.0.0.1. It is safe for concurrent use.
type Server struct {
	// MinPartSize is the least size of a part that is not the last one, in bytes; [New] sets
	// 5 MiB. An object must be larger for UploadPartCopy of a range. Set it before the
	// first request.
	MinPartSize int64
	// PageSize is how many keys, parts or uploads a list has at most, whatever is asked
	// for; [New] sets 1000. Set it before the first request.
	PageSize int

	bucket string
	http   *httptest.Server
	closed chan struct{}
	close  sync.Once

	mu        sync.Mutex
	quirks    Quirks
	objects   map[string]*object
	uploads   map[string]*upload // by ID
	completed map[string]*object // by ID of the upload
	requests  []*Request
	happened  map[string]int // by name of the quirk, and by name + "." + operation
	spent     map[string]int // likewise, of a number of times
	uses      map[string]int // by access key ID
	sent      int64
	serial    int // of uploads, ETags and requests
}

// A Request is one that a [Server] got.
type Request struct {
	Op          Op // empty if it is none of those that are known
	Method      string
	Bucket, Key string
	Query       url.Values
	Header      http.Header
	// AccessKeyID and Region are those that it is signed with.
	AccessKeyID, Region string
	// Remote is the client's HOST:PORT: requests with the same one came over the same
	// connection.
	Remote string
	// Status is that of the answer; 0 if there was none, or none yet.
	Status int
	// Code is the error code of the answer.
	Code string
	// Uploaded is how many bytes of its body were read so far, without their encoding.
	Uploaded int64
	// Downloaded is how many bytes of an object were sent in answer so far.
	Downloaded int64
}

// New starts a server that ends with the test.
func New(t testing.TB, bucket string) *Server {
	s := newServer(bucket)
	s.http.Start()
	t.Cleanup(s.Close)
	return s
}

// NewTLS is [New] with HTTPS, over which the SDK sends bodies as aws-chunked with trailing
// checksums. Only the client of [Server.Config] trusts its certificate.
func NewTLS(t testing.TB, bucket string) *Server {
	s := newServer(bucket)
	s.http.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func newServer(bucket string) *Server {
	s := &Server{
		MinPartSize: 5 << 20, PageSize: 1000,
		bucket: bucket, closed: make(chan struct{}),
		objects: map[string]*object{}, uploads: map[string]*upload{}, completed: map[string]*object{}, uses: map[string]int{},
	}
	s.SetQuirks(Quirks{})
	s.http = httptest.NewUnstartedServer(s)
	return s
}

// Close ends the server and every connection to it.
func (s *Server) Close() {
	s.close.Do(func() {
		close(s.closed)
		s.http.CloseClientConnections()
		s.http.Close()
	})
}

// URL returns the endpoint, without the bucket.
func (s *Server) URL() string { return s.http.URL }

// Env returns the environment variables with which the SDK's default configuration
// uses the server.
func (s *Server) Env() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_S3":   s.URL(),
		"AWS_REGION":            Region,
		"AWS_ACCESS_KEY_ID":     AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": SecretAccessKey,
	}
}

// Config returns a configuration for clients of the server. They need path style.
func (s *Server) Config() aws.Config {
	config := aws.Config{
		Region: Region, BaseEndpoint: aws.String(s.URL()),
		// As in the SDK's default configuration; the zero values are less.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}, nil
		}),
	}
	if s.http.TLS != nil {
		config.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.TLSClientConfig = &tls.Config{RootCAs: s.http.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}
		})
	}
	return config
}

// SetQuirks replaces what the server does wrong. All counts of them start again.
func (s *Server) SetQuirks(q Quirks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks, s.happened, s.spent, s.uses = q, map[string]int{}, map[string]int{}, map[string]int{}
}

// Happened returns how often a quirk showed since [Server.SetQuirks], by the name of its
// field, such as "SlowDown", or by that and an operation, such as "SlowDown.UploadPart".
func (s *Server) Happened(quirk string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[quirk]
}

// Requests returns all requests so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// Count returns how many requests there were of an operation.
func (s *Server) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if r.Op == op {
			n++
		}
	}
	return n
}

// Sent returns how many bytes of bodies of PutObject and UploadPart were received, those of
// requests that failed among them, without their encoding.
func (s *Server) Sent() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// Objects returns the keys of all objects, sorted.
func (s *Server) Objects() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Object returns the content of an object. The caller must not change it.
func (s *Server) Object(key string) ([]byte, bool) {
	o := s.object(key)
	if o == nil {
		return nil, false
	}
	return o.content, true
}

// Metadata returns the user metadata of an object, with names in lower case; nil if
// there is no object.
func (s *Server) Metadata(key string) map[string]string {
	o := s.object(key)
	if o == nil {
		return nil
	}
	return maps.Clone(o.metadata)
}

// Header returns what the writer of an object has said on it beside its metadata, such as
// Content-Type, X-Amz-Storage-Class and X-Amz-Tagging; nil if there is no object.
func (s *Server) Header(key string) http.Header {
	o := s.object(key)
	if o == nil {
		return nil
	}
	return o.header.Clone()
}

// ETag returns the ETag of an object, with its quotes; "" if there is no object.
func (s *Server) ETag(key string) string {
	o := s.object(key)
	if o == nil {
		return ""
	}
	return o.etag
}

func (s *Server) object(key string) *object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key]
}

// Put stores an object, as another client would. It is no request.
func (s *Server) Put(key string, content []byte, metadata map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.newObject(slices.Clone(content), checksum{}, s.quirks)
	o.metadata = map[string]string{}
	for name, value := range metadata {
		o.metadata[strings.ToLower(name)] = value
	}
	s.objects[key] = o
}

// Remove removes an object, if there is one. It is no request.
func (s *Server) Remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
}

// Uploads returns how many multipart uploads are pending.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Age makes all that is stored older: Last-Modified of objects and parts, Initiated of
// uploads.
func (s *Server) Age(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		older := *o // who is sending the other one reads it
		older.modified = o.modified.Add(-by)
		s.objects[key] = &older
	}
	for _, u := range s.uploads {
		u.initiated = u.initiated.Add(-by)
		for n, p := range u.parts {
			p.modified = p.modified.Add(-by)
			u.parts[n] = p
		}
	}
}

// A call is a request that is being handled.
type call struct {
	*Server
	request *http.Request
	quirks  Quirks
	record  *Request // guarded by the server's mutex
	body    *requestBody
	op, key string
	query   url.Values
}

func (c *call) context() context.Context { return c.request.Context() }

func (c *call) snapshot() Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.record
}

// ServeHTTP answers as S3, for use in another server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c := &call{Server: s, request: r, key: key, query: r.URL.Query()}
	c.op = operation(r.Method, bucket, key, c.query, r.Header)
	c.body = &requestBody{call: c, from: r.Body, cut: -1}
	c.record = &Request{Op: c.op, Method: r.Method, Bucket: bucket, Key: key, Query: c.query, Header: r.Header.Clone(), Remote: r.RemoteAddr}
	c.record.AccessKeyID, c.record.Region = credential(r.Header.Get("Authorization"))
	s.mu.Lock()
	s.requests = append(s.requests, c.record)
	c.quirks = s.quirks
	s.mu.Unlock()
	if c.quirks.Replace != nil {
		c.quirks.Replace(c.op, key)
	}
	refused := c.admit(bucket)
	if refused == nil {
		refused = c.fail()
	}
	if refused != nil {
		c.discard()
		c.send(w, refused)
		return
	}
	c.cutBody()
	a := c.handle()
	c.discard()
	if c.limited("LoseAnswer", c.quirks.LoseAnswer) {
		panic(http.ErrAbortHandler)
	}
	c.send(w, a)
}

// operation returns what is asked for, or "".
func operation(method, bucket, key string, query url.Values, h http.Header) Op {
	for _, other := range []string{"acl", "attributes", "legal-hold", "object-lock", "policy", "restore", "retention", "select", "torrent", "versioning", "versions", "lifecycle", "location"} {
		if query.Has(other) {
			return ""
		}
	}
	upload := query.Has("uploadId")
	if bucket == "" {
		return ""
	}
	if key == "" {
		switch {
		case method == http.MethodHead:
			return HeadBucket
		case method == http.MethodGet && query.Get("list-type") == "2":
			return ListObjectsV2
		case method == http.MethodGet && query.Has("uploads"):
			return ListMultipartUploads
		case method == http.MethodPost && query.Has("delete"):
			return DeleteObjects
		}
		return ""
	}
	copies := h.Get("X-Amz-Copy-Source") != ""
	switch {
	case query.Has("tagging") && method == http.MethodGet:
		return GetObjectTagging
	case query.Has("tagging"):
		return ""
	case method == http.MethodHead:
		return HeadObject
	case method == http.MethodGet && upload:
		return ListParts
	case method == http.MethodGet:
		return GetObject
	case method == http.MethodPut && upload && copies:
		return UploadPartCopy
	case method == http.MethodPut && upload:
		return UploadPart
	case method == http.MethodPut && copies:
		return CopyObject
	case method == http.MethodPut:
		return PutObject
	case method == http.MethodPost && query.Has("uploads"):
		return CreateMultipartUpload
	case method == http.MethodPost && upload:
		return CompleteMultipartUpload
	case method == http.MethodDelete && upload:
		return AbortMultipartUpload
	case method == http.MethodDelete:
		return DeleteObject
	}
	return ""
}

func (c *call) handle() *answer {
	switch c.op {
	case HeadBucket:
		return &answer{header: http.Header{"X-Amz-Bucket-Region": {cmp.Or(c.quirks.WrongRegion, Region)}}}
	case HeadObject, GetObject:
		return c.getObject()
	case GetObjectTagging:
		return c.getTagging()
	case PutObject:
		return c.putObject()
	case CopyObject:
		return c.copyObject()
	case DeleteObject:
		return c.deleteObject()
	case DeleteObjects:
		return c.deleteObjects()
	case ListObjectsV2:
		return c.listObjects()
	case CreateMultipartUpload:
		return c.createUpload()
	case UploadPart:
		return c.uploadPart()
	case UploadPartCopy:
		return c.uploadPartCopy()
	case ListParts:
		return c.listParts()
	case ListMultipartUploads:
		return c.listUploads()
	case CompleteMultipartUpload:
		return c.completeUpload()
	case AbortMultipartUpload:
		return c.abortUpload()
	}
	return notImplemented()
}

// credential returns the access key ID and the region of a signature of version 4.
func credential(authorization string) (accessKeyID, region string) {
	_, rest, _ := strings.Cut(authorization, "Credential=")
	scope := strings.Split(rest, "/") // ID/DATE/REGION/s3/aws4_request
	if !strings.HasPrefix(authorization, "AWS4-") || len(scope) < 5 {
		return "", ""
	}
	return scope[0], scope[2]
}

// now returns the server's time.
func (c *call) now() time.Time { return time.Now().Add(c.quirks.ClockSkew) }

// admit returns an answer to a request that may not be carried out.
func (c *call) admit(bucket string) *answer {
	q, h := c.quirks, c.request.Header
	const maxSkew = 15 * time.Minute
	sent, err := time.Parse("20060102T150405Z", h.Get("X-Amz-Date"))
	switch {
	case c.record.AccessKeyID == "":
		return denied()
	case err != nil:
		return refuse(http.StatusForbidden, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
	case c.now().Sub(sent).Abs() > maxSkew:
		c.count("ClockSkew")
		return refuse(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
			"RequestTime", h.Get("X-Amz-Date"), "ServerTime", c.now().UTC().Format(time.RFC3339), "MaxAllowedSkewMilliseconds", strconv.FormatInt(maxSkew.Milliseconds(), 10))
	case c.isExpired():
		c.count("ExpireAfter")
		return refuse(http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
	case q.WrongRegion != "" && c.record.Region != q.WrongRegion:
		c.count("WrongRegion")
		a := refuse(http.StatusMovedPermanently, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.",
			"Endpoint", bucket+".s3."+q.WrongRegion+".amazonaws.com", "Bucket", bucket)
		if q.WrongRegionMalformed {
			a = refuse(http.StatusBadRequest, "AuthorizationHeaderMalformed", fmt.Sprintf("The authorization header is malformed; the region '%s' is wrong; expecting '%s'", c.record.Region, q.WrongRegion), "Region", q.WrongRegion)
		}
		a.header.Set("X-Amz-Bucket-Region", q.WrongRegion)
		return a
	case c.op == "":
		return notImplemented()
	case bucket != c.bucket:
		return noSuchBucket(bucket)
	case q.NoBucket:
		c.count("NoBucket")
		return noSuchBucket(bucket)
	case q.Denied[c.op] || q.Denied[AnyOp]:
		c.count("Denied")
		return denied()
	case len(c.key) > 1024:
		return refuse(http.StatusBadRequest, "KeyTooLongError", "Your key is too long", "Size", strconv.Itoa(len(c.key)), "MaxSizeAllowed", "1024")
	}
	return nil
}

func noSuchBucket(bucket string) *answer {
	return refuse(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist", "BucketName", bucket)
}

// isExpired counts a use of the request's credential.
func (c *call) isExpired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses[c.record.AccessKeyID]++
	return c.quirks.ExpireAfter > 0 && c.uses[c.record.AccessKeyID] > c.quirks.ExpireAfter
}

// fail returns an answer to a request that a quirk keeps from being carried out.
func (c *call) fail() *answer {
	q := c.quirks
	conditional := c.request.Header.Get("If-None-Match") != "" || c.request.Header.Get("If-Match") != ""
	switch {
	case c.limited("SlowDown", q.SlowDown):
		a := refuse(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
		if q.RetryAfter > 0 {
			a.header.Set("Retry-After", strconv.Itoa(q.RetryAfter))
		}
		return a
	case c.limited("InternalError", q.InternalError):
		return internalError()
	case slices.Contains([]Op{CopyObject, UploadPartCopy, CompleteMultipartUpload}, c.op) && c.limited("ErrorIn200", q.ErrorIn200):
		a := internalError()
		a.status = http.StatusOK
		return a
	case q.RefusesConditions && conditional && slices.Contains([]Op{PutObject, CopyObject, CompleteMultipartUpload, DeleteObject}, c.op):
		c.count("RefusesConditions")
		return notImplemented()
	}
	return nil
}

func internalError() *answer {
	return refuse(http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
}

// only reports whether faults may show for a request.
func (c *call) only() bool { return c.quirks.Only == nil || c.quirks.Only(c.snapshot()) }

// limited reports whether a quirk that shows so many times shall show for a request, and
// counts it.
func (c *call) limited(quirk string, times map[Op]int) bool {
	if len(times) == 0 || !c.only() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range []Op{c.op, AnyOp} {
		if n := times[op]; n < 0 || c.spent[quirk+"."+op] < n {
			c.spent[quirk+"."+op]++
			c.show(quirk)
			return true
		}
	}
	return false
}

// first reports whether a quirk with a count shall show, and counts it.
func (c *call) first(quirk string, count int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if count > 0 && c.happened[quirk] >= count {
		return false
	}
	c.show(quirk)
	return true
}

func (c *call) count(quirk string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(quirk)
}

// show counts a quirk, with the mutex held.
func (c *call) show(quirk string) {
	c.happened[quirk]++
	c.happened[quirk+"."+c.op]++
}

// next returns a number that was not used before, with the mutex held.
func (s *Server) next() int {
	s.serial++
	return s.serial
}

// newETag returns the ETag of content, with the mutex held.
func (s *Server) newETag(content []byte, q Quirks) string {
	if q.OpaqueETags {
		content = fmt.Append(nil, "opaque ", s.next())
	}
	return fmt.Sprintf(`"%x"`, md5.Sum(content))
}
