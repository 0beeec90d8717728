package buckettest

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An object is one that is stored. It never changes: another takes its place.
type object struct {
	content  []byte
	etag     string // with quotes
	modified time.Time
	metadata map[string]string // by name in lower case
	header   http.Header       // such as Content-Type, also that of its tags
	checksum checksum
}

// newObject returns an object of content, with the mutex held. Without a checksum from
// the client S3 makes one.
func (s *Server) newObject(content []byte, stated checksum, q Quirks) *object {
	if stated.algorithm == "" && !q.NoChecksums {
		stated = checksumOf("CRC64NVME", content)
	}
	return &object{content: content, etag: s.newETag(content, q), modified: time.Now().Add(q.ClockSkew), checksum: stated, header: http.Header{"Content-Type": {"binary/octet-stream"}}}
}

const (
	metaPrefix    = "X-Amz-Meta-"
	taggingHeader = "X-Amz-Tagging"
)

// metadata returns what a request says on an object beside its content.
func (c *call) metadata() (metadata map[string]string, header http.Header, refused *answer) {
	metadata, header = map[string]string{}, http.Header{"Content-Type": {"binary/octet-stream"}}
	size := 0
	for name, values := range c.request.Header {
		if strings.HasPrefix(name, metaPrefix) {
			key := strings.ToLower(strings.TrimPrefix(name, metaPrefix))
			metadata[key] = strings.Join(values, ",")
			size += len(key) + len(metadata[key])
		}
	}
	const maxSize = 2 << 10
	if size > maxSize {
		return nil, nil, refuse(http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size", "Size", strconv.Itoa(size), "MaxSizeAllowed", strconv.Itoa(maxSize))
	}
	for _, name := range []string{"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Expires", "X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "X-Amz-Storage-Class", taggingHeader} {
		value := c.request.Header.Get(name)
		if name == "Content-Encoding" && c.isChunked() { // that of the request alone is not kept
			value = strings.Trim(strings.TrimPrefix(value, "aws-chunked"), ", ")
		}
		if value != "" {
			header.Set(name, value)
		}
	}
	return metadata, header, nil
}

func hasETag(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimSpace(one); one == "*" || bare(one) == bare(etag) {
			return true
		}
	}
	return false
}

// bare returns an ETag without the quotes, which clients may leave out.
func bare(etag string) string { return strings.Trim(etag, `"`) }

// checkRead returns an answer if a condition on reading an object does not hold. names
// are the headers of If-Match and If-None-Match.
func (c *call) checkRead(o *object, match, noneMatch string) *answer {
	h := c.request.Header
	if want := h.Get(match); want != "" && !hasETag(want, o.etag) {
		if !c.quirks.IgnoresIfMatchOnRead {
			return preconditionFailed(match)
		}
		c.count("IgnoresIfMatchOnRead")
	}
	if unwanted := h.Get(noneMatch); unwanted != "" && hasETag(unwanted, o.etag) {
		if c.op != HeadObject && c.op != GetObject {
			return preconditionFailed(noneMatch)
		}
		return &answer{status: http.StatusNotModified, header: http.Header{"Etag": {o.etag}, "Last-Modified": {httpTime(o.modified)}}}
	}
	return nil
}

// checkWrite returns an answer if a condition on replacing the object of a key does not
// hold, with the mutex held.
func (c *call) checkWrite(key, match, noneMatch string) *answer {
	q := c.quirks
	if q.NoConditions && match+noneMatch != "" {
		c.show("NoConditions")
		match, noneMatch = "", ""
	}
	if q.IgnoresIfMatch && match != "" {
		c.show("IgnoresIfMatch")
		match = ""
	}
	o := c.objects[key]
	switch {
	case noneMatch != "" && noneMatch != "*":
		return notImplemented()
	case noneMatch != "" && o != nil:
		return preconditionFailed("If-None-Match")
	case match == "*" && o == nil:
		return preconditionFailed("If-Match")
	case match != "" && o == nil:
		return noSuchKey(key)
	case match != "" && !hasETag(match, o.etag):
		return preconditionFailed("If-Match")
	}
	return nil
}

// checkHeaders is checkWrite with the headers of the request.
func (c *call) checkHeaders() *answer {
	return c.checkWrite(c.key, c.request.Header.Get("If-Match"), c.request.Header.Get("If-None-Match"))
}

func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

func (c *call) getObject() *answer {
	o := c.object(c.key)
	if o == nil {
		return noSuchKey(c.key)
	}
	if a := c.checkRead(o, "If-Match", "If-None-Match"); a != nil {
		return a
	}
	a := &answer{header: o.header.Clone(), object: o.content}
	if tags := tagsOf(o); len(tags) > 0 {
		a.header.Del(taggingHeader)
		a.header.Set("X-Amz-Tagging-Count", strconv.Itoa(len(tags)))
	}
	if a.object == nil {
		a.object = []byte{}
	}
	if r := c.request.Header.Get("Range"); r != "" {
		size := int64(len(o.content))
		from, to, valid := byteRange(r, size)
		if valid && from >= to {
			return refuse(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable", "RangeRequested", r, "ActualObjectSize", strconv.FormatInt(size, 10))
		}
		if valid {
			a.status, a.object = http.StatusPartialContent, o.content[from:to]
			a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		}
	}
	a.header.Set("Accept-Ranges", "bytes")
	a.header.Set("Etag", o.etag)
	a.header.Set("Last-Modified", httpTime(o.modified))
	for name, value := range o.metadata {
		a.header.Set(metaPrefix+name, value)
	}
	// The checksum is that of the whole object.
	if a.status == 0 && strings.EqualFold(c.request.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") && !c.quirks.NoChecksums {
		o.checksum.set(a.header)
	}
	return a
}

// tagsOf returns the tags of an object, which its writer gave like the query of a URL.
func tagsOf(o *object) url.Values {
	tags, _ := url.ParseQuery(o.header.Get(taggingHeader))
	return tags
}

func (c *call) getTagging() *answer {
	o := c.object(c.key)
	if o == nil {
		return noSuchKey(c.key)
	}
	type tag struct{ Key, Value string }
	result := struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}{}
	tags := tagsOf(o)
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		result.Tags = append(result.Tags, tag{key, tags.Get(key)})
	}
	return ok(result)
}

// byteRange returns the bytes that a Range header asks for, from the first to before the
// last. S3 ignores a header that is invalid or has several ranges.
func byteRange(header string, size int64) (from, to int64, valid bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	a, errFirst := strconv.ParseUint(first, 10, 62)
	b, errLast := strconv.ParseUint(last, 10, 62)
	from, to = int64(a), int64(b)
	switch {
	case first == "" && errLast == nil: // the last bytes
		return max(size-to, 0), size, true
	case errFirst == nil && last == "":
		return from, size, true
	case errFirst == nil && errLast == nil && from <= to:
		return from, min(to+1, size), true
	}
	return 0, 0, false
}

func (c *call) putObject() *answer {
	content, stated, refused := c.content()
	if refused != nil {
		return refused
	}
	metadata, header, refused := c.metadata()
	if refused != nil {
		return refused
	}
	if a := c.conflict("ConflictOnPut", c.quirks.ConflictOnPut); a != nil {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.checkHeaders(); a != nil {
		return a
	}
	o := c.newObject(content, stated, c.quirks)
	o.metadata, o.header = metadata, header
	c.objects[c.key] = o
	a := &answer{header: http.Header{"Etag": {o.etag}}}
	o.checksum.set(a.header)
	return a
}

// conflict returns the answer to a write with a condition that met another.
func (c *call) conflict(quirk string, times int) *answer {
	h := c.request.Header
	if h.Get("If-Match")+h.Get("If-None-Match") == "" || !c.limited(quirk, map[Op]int{c.op: times}) {
		return nil
	}
	return refuse(http.StatusConflict, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation against this resource.")
}

// source returns the object that x-amz-copy-source names, if its conditions hold.
func (c *call) source() (key string, o *object, refused *answer) {
	source, _, _ := strings.Cut(c.request.Header.Get("X-Amz-Copy-Source"), "?versionId=")
	source, err := url.PathUnescape(source)
	bucket, key, ok := strings.Cut(strings.TrimPrefix(source, "/"), "/")
	if err != nil || !ok || key == "" {
		return "", nil, invalidArgument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey", "x-amz-copy-source", source)
	}
	if bucket != c.bucket {
		return "", nil, noSuchBucket(bucket)
	}
	if o = c.object(key); o == nil {
		return "", nil, noSuchKey(key)
	}
	return key, o, c.checkRead(o, "X-Amz-Copy-Source-If-Match", "X-Amz-Copy-Source-If-None-Match")
}

type copyResult struct {
	XMLName      xml.Name
	ETag         string
	LastModified string
	checksumElements
	ChecksumType string `xml:",omitempty"`
}

func (c *call) copyObject() *answer {
	from, source, refused := c.source()
	if refused != nil {
		return refused
	}
	metadata, header, refused := c.metadata()
	if refused != nil {
		return refused
	}
	h := c.request.Header
	switch directive := cmp.Or(h.Get("X-Amz-Metadata-Directive"), "COPY"); {
	case directive == "COPY" && from == c.key:
		return invalidRequest("This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	case directive == "COPY":
		metadata, header = source.metadata, source.header
	case directive != "REPLACE":
		return invalidArgument("Unknown metadata directive.", "x-amz-metadata-directive", directive)
	}
	var stated checksum
	if !c.quirks.NoChecksums {
		stated = checksumOf(cmp.Or(strings.ToUpper(h.Get("X-Amz-Checksum-Algorithm")), source.checksum.algorithm), source.content)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.checkHeaders(); a != nil {
		return a
	}
	o := c.newObject(source.content, stated, c.quirks)
	o.metadata, o.header = metadata, header
	c.objects[c.key] = o
	return ok(copyResult{xml.Name{Space: namespace, Local: "CopyObjectResult"}, o.etag, iso(o.modified), o.checksum.elements(), o.checksum.kind})
}

func (c *call) deleteObject() *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.checkWrite(c.key, c.request.Header.Get("If-Match"), ""); a != nil {
		return a
	}
	delete(c.objects, c.key)
	return noContent()
}

func (c *call) deleteObjects() *answer {
	content, stated, refused := c.content()
	if refused != nil {
		return refused
	}
	if stated.algorithm == "" && !c.quirks.NoChecksums && c.request.Header.Get("Content-Md5") == "" {
		return invalidRequest("Missing required header for this request: Content-MD5")
	}
	var request struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Object  []struct{ Key, ETag string }
	}
	if xml.Unmarshal(content, &request) != nil || len(request.Object) == 0 || len(request.Object) > 1000 {
		return malformedXML()
	}
	type deleted struct{ Key string }
	type failed struct{ Key, Code, Message string }
	result := struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
		Deleted []deleted
		Error   []failed
	}{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range request.Object {
		if a := c.checkWrite(o.Key, o.ETag, ""); a != nil {
			result.Error = append(result.Error, failed{o.Key, a.code, "At least one of the pre-conditions you specified did not hold"})
			continue
		}
		delete(c.objects, o.Key)
		if !request.Quiet {
			result.Deleted = append(result.Deleted, deleted{o.Key})
		}
	}
	return ok(result)
}
