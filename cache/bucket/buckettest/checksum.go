package buckettest

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"
)

// nvme is the polynomial of CRC-64/NVME, reflected.
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

var algorithms = map[string]func() hash.Hash{
	"CRC32":     func() hash.Hash { return crc32.NewIEEE() },
	"CRC32C":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	"CRC64NVME": func() hash.Hash { return crc64.New(nvme) },
	"SHA1":      sha1.New,
	"SHA256":    sha256.New,
}

const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE"
)

// A checksum is one that S3 keeps with an object or part. The zero value is none.
type checksum struct {
	algorithm, kind string
	value           string // base64, with "-N" if composite
}

func checksumOf(algorithm string, content []byte) checksum {
	newHash := algorithms[algorithm]
	if newHash == nil {
		return checksum{}
	}
	h := newHash()
	h.Write(content)
	return checksum{algorithm, fullObject, base64.StdEncoding.EncodeToString(h.Sum(nil))}
}

func checksumHeader(algorithm string) string { return "X-Amz-Checksum-" + strings.ToLower(algorithm) }

func (c checksum) set(h http.Header) {
	if c.algorithm != "" {
		h.Set(checksumHeader(c.algorithm), c.value)
		h.Set("X-Amz-Checksum-Type", c.kind)
	}
}

// checksumElements are the elements of a checksum in XML.
type checksumElements struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
}

func (e *checksumElements) of(algorithm string) *string {
	switch algorithm {
	case "CRC32":
		return &e.ChecksumCRC32
	case "CRC32C":
		return &e.ChecksumCRC32C
	case "CRC64NVME":
		return &e.ChecksumCRC64NVME
	case "SHA1":
		return &e.ChecksumSHA1
	case "SHA256":
		return &e.ChecksumSHA256
	}
	return new(string)
}

func (c checksum) elements() (e checksumElements) {
	*e.of(c.algorithm) = c.value
	return e
}

// verify compares content with what the headers and trailers of its request say, and
// returns the checksum among them.
func (c *call) verify(content []byte, trailer http.Header) (stated checksum, refused *answer) {
	h := c.request.Header
	if want := h.Get("X-Amz-Content-Sha256"); len(want) == hex.EncodedLen(sha256.Size) {
		if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != want {
			return stated, refuse(http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
		}
	}
	if want := h.Get("Content-Md5"); want != "" {
		if got := md5.Sum(content); base64.StdEncoding.EncodeToString(got[:]) != want {
			return stated, refuse(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if c.quirks.NoChecksums {
		return stated, nil
	}
	for algorithm := range algorithms {
		name := checksumHeader(algorithm)
		want := h.Get(name) + trailer.Get(name)
		if want == "" {
			if strings.EqualFold(h.Get("X-Amz-Trailer"), name) {
				return stated, refuse(http.StatusBadRequest, "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
			}
			continue
		}
		if stated.algorithm != "" {
			return stated, refuse(http.StatusBadRequest, "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		stated = checksumOf(algorithm, content)
		if stated.value != want {
			return stated, refuse(http.StatusBadRequest, "BadDigest", "The "+algorithm+" you specified did not match the calculated checksum.")
		}
	}
	return stated, nil
}
