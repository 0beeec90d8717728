package buckettest

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An upload is a multipart upload that is pending.
type upload struct {
	id, key         string
	initiated       time.Time
	metadata        map[string]string
	header          http.Header
	algorithm, kind string // of checksums; may be empty
	parts           map[int]part
}

type part struct {
	content  []byte
	etag     string
	modified time.Time
	checksum checksum
}

// upload returns the upload of a request, with the mutex held.
func (c *call) upload() (*upload, *answer) {
	id := c.query.Get("uploadId")
	u := c.uploads[id]
	if u == nil || u.key != c.key {
		return nil, noSuchUpload(id)
	}
	return u, nil
}

func (c *call) createUpload() *answer {
	metadata, header, refused := c.metadata()
	if refused != nil {
		return refused
	}
	algorithm, kind := strings.ToUpper(c.request.Header.Get("X-Amz-Checksum-Algorithm")), strings.ToUpper(c.request.Header.Get("X-Amz-Checksum-Type"))
	if c.quirks.NoChecksums {
		algorithm, kind = "", ""
	}
	switch {
	case algorithm == "" && kind != "":
		return invalidRequest("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case algorithm != "" && algorithms[algorithm] == nil:
		return invalidRequest("Checksum algorithm provided is unsupported.")
	case algorithm == "CRC64NVME" && kind == composite, strings.HasPrefix(algorithm, "SHA") && kind == fullObject:
		return invalidRequest("The " + kind + " checksum type cannot be used with the " + strings.ToLower(algorithm) + " checksum algorithm.")
	case algorithm == "CRC64NVME":
		kind = fullObject
	case algorithm != "" && kind == "":
		kind = composite
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.next()
	u := &upload{
		id: fmt.Sprintf("%08d.%x", n, md5.Sum(fmt.Append(nil, c.key, n))), key: c.key, initiated: c.now(),
		metadata: metadata, header: header, algorithm: algorithm, kind: kind, parts: map[int]part{},
	}
	c.uploads[u.id] = u
	a := ok(struct {
		XMLName     xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
		Bucket, Key string
		UploadID    string `xml:"UploadId"`
	}{Bucket: c.bucket, Key: c.key, UploadID: u.id})
	if algorithm != "" {
		a.header.Set("X-Amz-Checksum-Algorithm", algorithm)
		a.header.Set("X-Amz-Checksum-Type", kind)
	}
	return a
}

// partNumber returns that of a request whose upload is pending.
func (c *call) partNumber() (int, *answer) {
	n, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || n < 1 || n > 10000 {
		return 0, invalidArgument("Part number must be an integer between 1 and 10000, inclusive", "partNumber", c.query.Get("partNumber"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, refused := c.upload()
	return n, refused
}

func (c *call) uploadPart() *answer {
	n, refused := c.partNumber()
	if refused != nil {
		return refused
	}
	content, stated, refused := c.content()
	if refused != nil {
		return refused
	}
	p, refused := c.addPart(n, content, stated)
	if refused != nil {
		return refused
	}
	a := &answer{header: http.Header{"Etag": {p.etag}}}
	if p.checksum.algorithm != "" {
		a.header.Set(checksumHeader(p.checksum.algorithm), p.checksum.value)
	}
	return a
}

// addPart stores a part. The upload may have ended while its content came.
func (c *call) addPart(n int, content []byte, stated checksum) (part, *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, refused := c.upload()
	if refused != nil {
		return part{}, refused
	}
	switch {
	case c.quirks.NoChecksums || u.algorithm == "":
	case stated.algorithm == "":
		stated = checksumOf(u.algorithm, content)
	case stated.algorithm != u.algorithm:
		return part{}, invalidRequest(fmt.Sprintf("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(u.algorithm), strings.ToLower(stated.algorithm)))
	}
	p := part{content, c.newETag(content, c.quirks), c.now(), stated}
	u.parts[n] = p
	return p, nil
}

func (c *call) uploadPartCopy() *answer {
	n, refused := c.partNumber()
	if refused != nil {
		return refused
	}
	_, source, refused := c.source()
	if refused != nil {
		return refused
	}
	content := source.content
	if r := c.request.Header.Get("X-Amz-Copy-Source-Range"); r != "" {
		var from, to int64
		if _, err := fmt.Sscanf(r, "bytes=%d-%d", &from, &to); err != nil || from < 0 || from > to {
			return invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy", "x-amz-copy-source-range", r)
		}
		if size := int64(len(content)); to >= size {
			return invalidArgument(fmt.Sprintf("Range specified is not valid for source object of size: %d", size), "x-amz-copy-source-range", r)
		} else if size <= c.MinPartSize {
			return invalidRequest("The specified copy source is not supported as a byte-range copy source")
		}
		content = content[from : to+1]
	}
	p, refused := c.addPart(n, content, checksum{})
	if refused != nil {
		return refused
	}
	return ok(copyResult{xml.Name{Space: namespace, Local: "CopyPartResult"}, p.etag, iso(p.modified), p.checksum.elements(), ""})
}

func (c *call) abortUpload() *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, refused := c.upload()
	if refused != nil {
		return refused
	}
	delete(c.uploads, u.id)
	return noContent()
}

type completedPart struct {
	PartNumber int
	ETag       string
	checksumElements
}

func (c *call) completeUpload() *answer {
	content, _, refused := c.contentOfRequest()
	if refused != nil {
		return refused
	}
	var request struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []completedPart
	}
	if xml.Unmarshal(content, &request) != nil || len(request.Part) == 0 || len(request.Part) > 10000 {
		return malformedXML()
	}
	conflict := c.conflict("ConflictOnComplete", c.quirks.ConflictOnComplete)
	c.mu.Lock()
	defer c.mu.Unlock()
	u, refused := c.upload()
	if refused != nil {
		if o := c.completed[c.query.Get("uploadId")]; o != nil && c.quirks.CompletedAgain {
			c.show("CompletedAgain")
			return c.completion(o)
		}
		return refused
	}
	if conflict != nil {
		if c.quirks.ConflictEndsUpload {
			delete(c.uploads, u.id)
		}
		return conflict
	}
	parts, refused := c.chooseParts(u, request.Part)
	if refused != nil {
		return refused
	}
	o, refused := c.assemble(u, parts)
	if refused != nil {
		return refused
	}
	// The upload stays pending when its condition does not hold, and its parts are
	// charged for, until it is aborted.
	if a := c.checkHeaders(); a != nil {
		return a
	}
	delete(c.uploads, u.id)
	c.objects[u.key], c.completed[u.id] = o, o
	return c.completion(o)
}

// contentOfRequest is content of a request whose x-amz-checksum headers are of the object
// that it makes, and not of its own body.
func (c *call) contentOfRequest() ([]byte, checksum, *answer) {
	own := *c
	own.quirks.NoChecksums = true
	return own.content()
}

func (c *call) completion(o *object) *answer {
	return ok(struct {
		XMLName                     xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
		Location, Bucket, Key, ETag string
		checksumElements
		ChecksumType string `xml:",omitempty"`
	}{
		Location: c.URL() + "/" + c.bucket + "/" + c.key, Bucket: c.bucket, Key: c.key, ETag: o.etag,
		checksumElements: o.checksum.elements(), ChecksumType: o.checksum.kind,
	})
}

// chooseParts returns the parts of an upload that a request to complete it names.
func (c *call) chooseParts(u *upload, named []completedPart) ([]part, *answer) {
	var parts []part
	for i, n := range named {
		if i > 0 && n.PartNumber <= named[i-1].PartNumber {
			return nil, refuse(http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order. The parts list must be specified in order by part number.", "UploadId", u.id)
		}
		p, ok := u.parts[n.PartNumber]
		stated := *n.of(p.checksum.algorithm)
		if !ok || bare(n.ETag) != bare(p.etag) || stated != "" && stated != p.checksum.value {
			return nil, refuse(http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
				"UploadId", u.id, "PartNumber", strconv.Itoa(n.PartNumber), "ETag", bare(n.ETag))
		}
		if u.kind == composite && stated == "" && !c.quirks.NoChecksums {
			return nil, invalidRequest(fmt.Sprintf("The upload was created using a %s checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", strings.ToLower(u.algorithm), n.PartNumber))
		}
		parts = append(parts, p)
	}
	for i, p := range parts[:len(parts)-1] {
		if int64(len(p.content)) < c.MinPartSize {
			return nil, refuse(http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size",
				"ProposedSize", strconv.Itoa(len(p.content)), "MinSizeAllowed", strconv.FormatInt(c.MinPartSize, 10), "PartNumber", strconv.Itoa(named[i].PartNumber), "ETag", bare(p.etag))
		}
	}
	return parts, nil
}

// assemble makes the object of an upload.
func (c *call) assemble(u *upload, parts []part) (*object, *answer) {
	var content, etags, sums []byte
	for _, p := range parts {
		content = append(content, p.content...)
		sum, err := hex.DecodeString(bare(p.etag))
		if err != nil {
			panic(err)
		}
		etags = append(etags, sum...)
		sum, err = base64.StdEncoding.DecodeString(p.checksum.value)
		if err != nil {
			panic(err)
		}
		sums = append(sums, sum...)
	}
	h := c.request.Header
	if size := h.Get("X-Amz-Mp-Object-Size"); size != "" && size != strconv.Itoa(len(content)) {
		return nil, invalidRequest("The provided 'x-amz-mp-object-size' header does not match what was computed.")
	}
	sum := checksum{}
	if u.kind == composite && !c.quirks.NoChecksums {
		sum = checksumOf(u.algorithm, sums)
		sum.kind = composite
		sum.value = fmt.Sprintf("%s-%d", sum.value, len(parts))
	} else if !c.quirks.NoChecksums {
		sum = checksumOf(u.algorithm, content)
	}
	o := c.newObject(content, sum, c.quirks)
	if !c.quirks.NoChecksums {
		for algorithm := range algorithms {
			want := h.Get(checksumHeader(algorithm))
			if want == "" {
				continue
			}
			if algorithm != o.checksum.algorithm || want != o.checksum.value && !(o.checksum.kind == composite && want+fmt.Sprintf("-%d", len(parts)) == o.checksum.value) {
				return nil, refuse(http.StatusBadRequest, "BadDigest", "The "+algorithm+" you specified did not match the calculated checksum.")
			}
		}
	}
	o.etag = fmt.Sprintf(`"%x-%d"`, md5.Sum(etags), len(parts))
	o.metadata, o.header = u.metadata, u.header
	return o, nil
}
