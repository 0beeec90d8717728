package buckettest

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

type commonPrefix struct{ Prefix string }

// limit returns how many entries a list may have.
func (c *call) limit(name string) (int, *answer) {
	text := c.query.Get(name)
	if text == "" {
		return c.PageSize, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, invalidArgument("Provided "+name+" not an integer or within integer range", name, text)
	}
	return min(int(n), c.PageSize), nil
}

// encode returns how keys are put into a list: as they are, or as in a URL.
func (c *call) encode() (func(string) string, *answer) {
	switch t := c.query.Get("encoding-type"); t {
	case "":
		return func(s string) string { return s }, nil
	case "url":
		return func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }, nil
	default:
		return nil, invalidArgument("Invalid Encoding Method specified in Request", "encoding-type", t)
	}
}

// group returns the common prefix that stands for a key in a list, or "".
func group(key, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	before, _, ok := strings.Cut(key[len(prefix):], delimiter)
	if !ok {
		return ""
	}
	return prefix + before + delimiter
}

type contents struct {
	Key, LastModified, ETag string
	ChecksumAlgorithm       string `xml:",omitempty"`
	ChecksumType            string `xml:",omitempty"`
	Size                    int
	StorageClass            string
}

func (c *call) listObjects() *answer {
	limit, refused := c.limit("max-keys")
	if refused != nil {
		return refused
	}
	encode, refused := c.encode()
	if refused != nil {
		return refused
	}
	prefix, delimiter := c.query.Get("prefix"), c.query.Get("delimiter")
	after := c.query.Get("start-after")
	if token := c.query.Get("continuation-token"); c.query.Has("continuation-token") {
		key, err := base64.URLEncoding.DecodeString(token)
		if err != nil || token == "" {
			return invalidArgument("The continuation token provided is incorrect", "continuation-token", token)
		}
		after = string(key)
	}
	result := struct {
		XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name, Prefix          string
		Delimiter             string `xml:",omitempty"`
		StartAfter            string `xml:",omitempty"`
		ContinuationToken     string `xml:",omitempty"`
		NextContinuationToken string `xml:",omitempty"`
		EncodingType          string `xml:",omitempty"`
		KeyCount, MaxKeys     int
		IsTruncated           bool
		Contents              []contents
		CommonPrefixes        []commonPrefix
	}{
		Name: c.bucket, Prefix: encode(prefix), Delimiter: encode(delimiter), StartAfter: encode(c.query.Get("start-after")),
		ContinuationToken: c.query.Get("continuation-token"), EncodingType: c.query.Get("encoding-type"), MaxKeys: limit,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := "" // of the list: a key or a common prefix
	for _, key := range slices.Sorted(maps.Keys(c.objects)) {
		shared := ""
		if strings.HasPrefix(key, prefix) {
			shared = group(key, prefix, delimiter)
		}
		if !strings.HasPrefix(key, prefix) || key <= after || shared != "" && (shared == last || shared == after) {
			continue
		}
		if result.KeyCount == limit {
			result.IsTruncated = limit > 0
			break
		}
		result.KeyCount++
		if shared != "" {
			last = shared
			result.CommonPrefixes = append(result.CommonPrefixes, commonPrefix{encode(shared)})
			continue
		}
		last = key
		o := c.objects[key]
		result.Contents = append(result.Contents, contents{
			Key: encode(key), LastModified: iso(o.modified), ETag: o.etag, Size: len(o.content), StorageClass: "STANDARD",
			ChecksumAlgorithm: o.checksum.algorithm, ChecksumType: o.checksum.kind,
		})
	}
	if result.IsTruncated {
		result.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
	}
	return ok(result)
}

type partElement struct {
	PartNumber         int
	LastModified, ETag string
	Size               int
	checksumElements
}

func (c *call) listParts() *answer {
	limit, refused := c.limit("max-parts")
	if refused != nil {
		return refused
	}
	marker, err := strconv.Atoi(cmp.Or(c.query.Get("part-number-marker"), "0"))
	if err != nil || marker < 0 {
		return invalidArgument("Argument part-number-marker must be an integer between 0 and 2147483647", "part-number-marker", c.query.Get("part-number-marker"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u, refused := c.upload()
	if refused != nil {
		return refused
	}
	result := struct {
		XMLName                                xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
		Bucket, Key                            string
		UploadID                               string `xml:"UploadId"`
		PartNumberMarker, NextPartNumberMarker int
		MaxParts                               int
		IsTruncated                            bool
		ChecksumAlgorithm                      string `xml:",omitempty"`
		ChecksumType                           string `xml:",omitempty"`
		StorageClass                           string
		Part                                   []partElement
	}{
		Bucket: c.bucket, Key: c.key, UploadID: u.id, PartNumberMarker: marker, MaxParts: limit,
		ChecksumAlgorithm: u.algorithm, ChecksumType: u.kind, StorageClass: "STANDARD",
	}
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		if n <= marker {
			continue
		}
		if len(result.Part) == limit {
			result.IsTruncated = limit > 0
			break
		}
		p := u.parts[n]
		result.Part = append(result.Part, partElement{n, iso(p.modified), p.etag, len(p.content), p.checksum.elements()})
		result.NextPartNumberMarker = n
	}
	return ok(result)
}

type uploadElement struct {
	Key               string
	UploadID          string `xml:"UploadId"`
	Initiated         string
	StorageClass      string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

func (c *call) listUploads() *answer {
	limit, refused := c.limit("max-uploads")
	if refused != nil {
		return refused
	}
	encode, refused := c.encode()
	if refused != nil {
		return refused
	}
	prefix, delimiter := c.query.Get("prefix"), c.query.Get("delimiter")
	keyMarker, idMarker := c.query.Get("key-marker"), c.query.Get("upload-id-marker")
	result := struct {
		XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
		Bucket, Prefix     string
		Delimiter          string `xml:",omitempty"`
		KeyMarker          string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Upload             []uploadElement
		CommonPrefixes     []commonPrefix
	}{
		Bucket: c.bucket, Prefix: encode(prefix), Delimiter: encode(delimiter), KeyMarker: encode(keyMarker), UploadIDMarker: idMarker,
		EncodingType: c.query.Get("encoding-type"), MaxUploads: limit,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// IDs sort like the times at which uploads were initiated.
	sorted := slices.SortedFunc(maps.Values(c.uploads), func(a, b *upload) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.id, b.id))
	})
	for _, u := range sorted {
		if !strings.HasPrefix(u.key, prefix) || u.key < keyMarker || u.key == keyMarker && (idMarker == "" || u.id <= idMarker) {
			continue
		}
		shared := group(u.key, prefix, delimiter)
		if shared != "" && (slices.Contains(result.CommonPrefixes, commonPrefix{encode(shared)}) || shared == keyMarker) {
			continue
		}
		if len(result.Upload)+len(result.CommonPrefixes) == limit {
			result.IsTruncated = limit > 0
			break
		}
		if shared != "" {
			result.CommonPrefixes = append(result.CommonPrefixes, commonPrefix{encode(shared)})
			result.NextKeyMarker, result.NextUploadIDMarker = encode(shared), ""
			continue
		}
		result.Upload = append(result.Upload, uploadElement{encode(u.key), u.id, iso(u.initiated), "STANDARD", u.algorithm, u.kind})
		result.NextKeyMarker, result.NextUploadIDMarker = encode(u.key), u.id
	}
	if !result.IsTruncated {
		result.NextKeyMarker, result.NextUploadIDMarker = "", ""
	}
	return ok(result)
}
