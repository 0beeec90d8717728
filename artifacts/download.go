package artifacts

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime"
	"path"
	"strings"
	"time"
)

// Download downloads an artifact of a repository and verifies it: its digest and
// size as the API states them, and everything that [NewArchive] checks.
//
// The artifact is held in memory, bounded by [Limits]: it has the text files of a
// build, a zip is read from its end, and nothing that was not verified stays on a
// disk when the process is killed.
//
// The API redirects to a storage by a URL that is valid for one minute. The
// storage does not get the token, and each retry asks the API for a new URL.
//
// The kinds of its errors are those of [Client.Run], and [ErrExpired],
// [ErrDigest], [ErrArchive], [ErrLimit].
func (c *Client) Download(ctx context.Context, repository string, artifact Artifact) (*Archive, error) {
	call := c.newCall()
	archive, err := call.download(ctx, repository, artifact)
	return archive, call.secrets.Error(err)
}

func (c *call) download(ctx context.Context, repository string, artifact Artifact) (*Archive, error) {
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	op := fmt.Sprintf("download artifact %d, %.200q, of", artifact.ID, artifact.Name)
	fail := func(kind error, format string, args ...any) (*Archive, error) {
		return nil, newError(ctx, op, repository, kind, fmt.Errorf(format, args...))
	}
	if artifact.Expired {
		return fail(ErrExpired, "it was kept until %s", dateOf(artifact.ExpiresAt))
	}
	if limit := c.options.Limits.ArchiveBytes; artifact.Size > limit {
		return fail(ErrLimit, "it has %d bytes, the limit is %d", artifact.Size, limit)
	}
	a, err := c.get(ctx, op, repository, fmt.Sprintf("repos/%s/actions/artifacts/%d/zip", repository, artifact.ID), nil)
	if err != nil {
		return nil, err
	}
	zipped := isZip(a, artifact.Digest)
	switch err := checkDigest(a.body, artifact.Digest); {
	case err != nil:
		return fail(ErrDigest, "%w", err)
	case artifact.Digest == "" && !zipped:
		// Uploads that are not zipped are newer than digests. This is something
		// else, such as the web page of a proxy.
		return fail(ErrAnswer, "the storage did not send a zip, and the API states no digest to verify it by")
	case artifact.Digest != "" && artifact.Size != int64(len(a.body)):
		// Without a digest it is an old upload, whose size is that of the files.
		return fail(ErrDigest, "the API states %d bytes, the storage sent %d", artifact.Size, len(a.body))
	}
	content := a.body
	if !zipped {
		if content, err = zipOne(cmp.Or(statedName(a), artifact.Name), content); err != nil {
			return fail(ErrArchive, "%w", err)
		}
	}
	return NewArchive(artifact, content, c.options.Limits)
}

func dateOf(t time.Time) string {
	if t.IsZero() {
		return "a date that is not stated"
	}
	return t.UTC().Format(time.RFC3339)
}

// checkDigest verifies content by a digest as the API states it; "" is none.
func checkDigest(content []byte, digest string) error {
	if digest == "" {
		return nil
	}
	want, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(want) != hex.EncodedLen(sha256.Size) {
		return fmt.Errorf("the API states the digest %.100q, want sha256", digest)
	}
	sum := sha256.Sum256(content)
	if have := hex.EncodeToString(sum[:]); !strings.EqualFold(have, want) {
		return fmt.Errorf("the API states %s, the storage sent %d bytes with sha256:%s", digest, len(content), have)
	}
	return nil
}

// isZip reports whether the storage sent a zip, not the file as it was uploaded: by
// the rules of actions/download-artifact 8, and where media types are lost, as behind
// some proxies, by its content. A file that was uploaded as it is has a digest, and the
// storage states its name.
func isZip(a *answer, digest string) bool {
	mediaType, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch {
	case err == nil && (mediaType == "application/zip" || mediaType == "application/x-zip-compressed" || mediaType == "application/zip-compressed"):
		return true
	case a.url != nil && strings.EqualFold(path.Ext(a.url.Path), ".zip"):
		return true
	}
	name := statedName(a)
	return looksZip(a.body) && (digest == "" || name == "" || strings.EqualFold(path.Ext(name), ".zip"))
}

// looksZip reports whether content begins as a zip does, one without files included.
func looksZip(content []byte) bool {
	return bytes.HasPrefix(content, []byte("PK\x03\x04")) || bytes.HasPrefix(content, []byte("PK\x05\x06"))
}

// statedName is the file's name that the storage states (RFC 6266, with or without an
// encoding), "" for none.
func statedName(a *answer) string {
	_, parameters, err := mime.ParseMediaType(a.header.Get("Content-Disposition"))
	if err != nil {
		return ""
	}
	return parameters["filename"]
}
