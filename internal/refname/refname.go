// Package refname parses image references. The error of one that is malformed contains what
// to change.
package refname

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// Parse checks a reference against the grammar of distribution/reference, which Docker
// and the registries use, and completes it as Docker does. The error does not contain
// the reference; see [Printable].
func Parse(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err == nil {
		err = checkHost(named)
	}
	if err != nil {
		if Printable(ref) != ref { // the grammar's error may quote it
			err = reference.ErrReferenceInvalidFormat
		}
		if text := mistake(ref); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return nil, err
	}
	return named, nil
}

// checkHost refuses a host that is none: the grammar takes "Team/image" for an image
// "image" in a registry "Team", because of its upper case.
func checkHost(named reference.Named) error {
	host := reference.Domain(named)
	if strings.ContainsAny(host, ".:") || strings.ToLower(host) == host {
		return nil
	}
	return reference.ErrNameContainsUppercase
}

var (
	// schemes are what people put before a reference: that of a URL, or the
	// transport of another tool
	// (https://github.com/containers/image/blob/v5.30.0/docs/containers-transports.5.md).
	schemes = regexp.MustCompile(`^(?:[A-Za-z][A-Za-z0-9+.-]*://|(?:containers-storage|dir|docker-archive|docker-daemon|oci|oci-archive|ostree|sif):)`)
	// digests are what may follow an "@", complete or not.
	digests = regexp.MustCompile(`(?i)^(?:sha[0-9]+|md5|blake[0-9a-z]+):[^@/:]*$`)
	// hexadecimal is a digest without its algorithm.
	hexadecimal = regexp.MustCompile(`^[0-9a-fA-F]{32,}$`)
)

// split takes a reference apart: its scheme, what is before an "@" that is not that of a
// digest, and the rest.
func split(ref string) (scheme, user, rest string) {
	scheme = schemes.FindString(ref)
	rest = ref[len(scheme):]
	name := rest
	if i := strings.LastIndex(rest, "@"); i >= 0 && (digests.MatchString(rest[i+1:]) || hexadecimal.MatchString(rest[i+1:])) {
		name = rest[:i]
	}
	if i := strings.LastIndex(name, "@"); i >= 0 {
		user, rest = rest[:i], rest[i+1:]
	}
	return scheme, user, rest
}

// Printable returns a reference without what may be secret in one that is malformed: a
// user and password before an "@", and a query.
func Printable(ref string) string {
	scheme, user, rest := split(ref)
	if user != "" {
		rest = "***@" + rest
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i+1] + "***"
	}
	return scheme + rest
}

// mistake returns what to change in a reference that is malformed; "" if that is not
// known.
func mistake(ref string) string {
	scheme, user, rest := split(ref)
	name, digest, hasDigest := strings.Cut(rest, "@")
	last := name[strings.LastIndex(name, "/")+1:]
	path, tag, _ := strings.Cut(last, ":")
	repository := name[:len(name)-len(last)] + path
	switch {
	case ref == "":
		return "it is empty"
	case scheme != "":
		return fmt.Sprintf("leave %q out: a reference begins with the registry's name", scheme)
	case user != "" && rest == "":
		return `there is nothing after the "@": leave it out, or add the digest`
	case user != "":
		return `leave out what is before the "@": credentials are not part of a reference`
	case strings.ContainsAny(rest, "?#"):
		return `leave out the "?" or "#" and what follows it: a reference has no query`
	case strings.ContainsFunc(ref, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xa0 }):
		return "leave out the spaces and control characters in it"
	case name != "" && path == "" && !strings.Contains(name, "/"):
		return "it has no repository before the tag"
	case name != "" && path == "":
		return "leave out the slash at the end of the repository"
	case strings.HasPrefix(name, "/"):
		return "leave out the slash at its beginning"
	case strings.Contains(name, "//"):
		return `leave out one of the slashes in "//"`
	case strings.Contains(tag, ":"):
		return fmt.Sprintf("it has two tags, %s: leave one of them out", strings.Join(quoted(strings.Split(tag, ":")), " and "))
	case lower(repository) != repository:
		return fmt.Sprintf("a repository is written in lower case: %q", lower(repository))
	case strings.HasSuffix(name, ":"):
		return `there is no tag after the ":": leave it out, or add the tag`
	case hasDigest && !strings.Contains(digest, ":"):
		return `what follows the "@" is no digest: want sha256: and 64 hexadecimal digits`
	case hasDigest && strings.EqualFold(digest[:min(7, len(digest))], "sha256:") && (len(digest) != 71 || digest[:3] != "sha" || strings.Trim(digest[7:], "0123456789abcdef") != ""):
		return "its digest is not sha256: and 64 hexadecimal digits in lower case"
	}
	return ""
}

func quoted(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = fmt.Sprintf("%q", s)
	}
	return out
}

// lower returns a repository in lower case, but for its host, if it has one.
func lower(repository string) string {
	host, path, ok := strings.Cut(repository, "/")
	if ok && strings.ContainsAny(host, ".:") {
		return host + "/" + strings.ToLower(path)
	}
	return strings.ToLower(repository)
}

// Hub are the names of Docker Hub's registry. The first is that of complete references.
var Hub = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// Repository returns a complete reference, as images have it, without its tag.
func Repository(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return named.Name()
}
