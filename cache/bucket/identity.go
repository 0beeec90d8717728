package bucket

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagespec"
)

// An identity is what the metadata of a tarball's object says, so that one HEAD shows whether
// anything is to be done. Who may write to the bucket can make it say anything; nothing is loaded
// that was not verified by the digests in the tarball.
type identity struct {
	digest    v1.Hash
	reference string
	indexes   []v1.Hash // the digests of those in the tarball
	run       tarball.Run
	group     string
	verified  time.Time // when the first of its bytes was hashed
	token     string    // of the upload
}

// The names of metadata; the server puts x-amz-meta- before them.
const (
	metaDigest    = "dockercache-digest"
	metaReference = "dockercache-reference"
	metaIndexes   = "dockercache-indexes"
	metaRun       = "dockercache-run"
	metaGroup     = "dockercache-group"
	metaVerified  = "dockercache-verified"
	metaUpload    = "dockercache-upload"
)

func (i *identity) metadata() map[string]string {
	m := map[string]string{
		metaDigest: i.digest.String(), metaReference: i.reference, metaUpload: i.token,
		metaVerified: i.verified.UTC().Format(time.RFC3339),
	}
	if i.run.ID != 0 {
		m[metaRun] = strconv.FormatInt(i.run.ID, 10) + "." + strconv.FormatInt(i.run.Attempt, 10)
	}
	if i.group != "" {
		m[metaGroup] = url.QueryEscape(i.group) // metadata is ASCII
	}
	var indexes []string
	for _, d := range i.indexes {
		indexes = append(indexes, d.String())
	}
	if len(indexes) > 0 {
		m[metaIndexes] = strings.Join(indexes, ",")
	}
	return m
}

// identityOf reads metadata; nil if it is not of this package.
func identityOf(meta map[string]string) *identity {
	m := map[string]string{}
	for k, v := range meta {
		m[strings.ToLower(k)] = v
	}
	digest, err := v1.NewHash(m[metaDigest])
	if err != nil || m[metaReference] == "" {
		return nil
	}
	i := &identity{digest: digest, reference: m[metaReference], token: m[metaUpload]}
	if i.verified, err = time.Parse(time.RFC3339, m[metaVerified]); err != nil {
		return nil
	}
	if text := m[metaRun]; text != "" {
		id, attempt, _ := strings.Cut(text, ".")
		var e1, e2 error
		i.run.ID, e1 = strconv.ParseInt(id, 10, 64)
		i.run.Attempt, e2 = strconv.ParseInt(attempt, 10, 64)
		if e1 != nil || e2 != nil {
			return nil
		}
	}
	if i.group, err = url.QueryUnescape(m[metaGroup]); err != nil {
		return nil
	}
	if text := m[metaIndexes]; text != "" {
		for d := range strings.SplitSeq(text, ",") {
			h, err := v1.NewHash(d)
			if err != nil {
				return nil
			}
			i.indexes = append(i.indexes, h)
		}
	}
	return i
}

// digestsOf returns the digests of indexes.
func digestsOf(indexes [][]byte) (digests []v1.Hash) {
	for _, raw := range indexes {
		digests = append(digests, imagespec.DigestOf(raw))
	}
	return digests
}
