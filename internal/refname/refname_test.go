package refname

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const sha = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	for ref, want := range map[string]string{
		"debian": "docker.io/library/debian", "debian:12": "docker.io/library/debian:12", "debian:12" + sha: "docker.io/library/debian:12" + sha,
		"localhost:5000/x:t": "localhost:5000/x:t", "ghcr.io/a/b" + sha: "ghcr.io/a/b" + sha, "Registry.example/x:T": "Registry.example/x:T",
	} {
		named, err := Parse(ref)
		require.NoError(t, err, ref)
		assert.Equal(t, want, named.String())
		assert.Equal(t, ref, Printable(ref))
	}
}

// Each mistake that people make has an error that says what to change, and no password
// is in it.
func TestMistakes(t *testing.T) {
	for ref, c := range map[string]struct{ says, printed string }{
		"":                              {"it is empty", ""},
		"https://ghcr.io/a/b:t":         {`leave "https://" out`, ""},
		"http://localhost:5000/x":       {`leave "http://" out`, ""},
		"docker://debian:12":            {`leave "docker://" out`, ""},
		"oci://ghcr.io/a/chart:1":       {`leave "oci://" out`, ""},
		"HTTPS://ghcr.io/a/b":           {`leave "HTTPS://" out`, ""},
		"oci-archive:/images/x.tar":     {`leave "oci-archive:" out`, ""},
		"docker-daemon:debian:12":       {`leave "docker-daemon:" out`, ""},
		"containers-storage:a/b:t":      {`leave "containers-storage:" out`, ""},
		"oci:secret@ghcr.io/a/b:t":      {`leave "oci:" out`, "oci:***@ghcr.io/a/b:t"},
		"ghcr.io/a/b:one:two":           {`it has two tags, "one" and "two": leave one of them out`, ""},
		"localhost:5000/x:a:b":          {`it has two tags, "a" and "b"`, ""},
		"x:a:b" + sha:                   {`it has two tags, "a" and "b"`, ""},
		"x:a:b:c":                       {`it has two tags, "a" and "b" and "c"`, ""},
		"ghcr.io/Org/Image:t":           {`in lower case: "ghcr.io/org/image"`, ""},
		"Debian:12":                     {`in lower case: "debian"`, ""},
		"Team/image:t":                  {`in lower case: "team/image"`, ""},
		"GHCR.io/Org/x:T":               {`in lower case: "GHCR.io/org/x"`, ""},
		" debian:12":                    {"leave out the spaces", ""},
		"debian:12\n":                   {"leave out the spaces and control characters", ""},
		"debian :12":                    {"leave out the spaces", ""},
		"debian:\u00a012":               {"leave out the spaces", ""},
		"ghcr.io/a/b/":                  {"leave out the slash at the end", ""},
		"ghcr.io/a/b/:t":                {"leave out the slash at the end", ""},
		":t":                            {"it has no repository before the tag", ""},
		"/":                             {"leave out the slash", ""},
		"x:a\x00b":                      {"leave out the spaces and control characters", ""},
		"/a/b:t":                        {"leave out the slash at its beginning", ""},
		"ghcr.io//a:t":                  {`leave out one of the slashes`, ""},
		"debian:":                       {`no tag after the ":"`, ""},
		"debian@":                       {`nothing after the "@"`, "***@"},
		"debian@sha256:0123":            {"its digest is not sha256: and 64", ""},
		"debian" + strings.ToUpper(sha): {"its digest is not sha256: and 64", ""},
		"debian" + strings.Replace(sha, "sha256:", "", 1): {"want sha256: and 64 hexadecimal digits", ""},
		"debian" + strings.Replace(sha, "f", "F", 1):      {"its digest is not sha256: and 64", ""},
		"user:secret@ghcr.io/a/b:t":                       {`leave out what is before the "@"`, "***@ghcr.io/a/b:t"},
		"user@ghcr.io/a/b:t" + sha:                        {`leave out what is before the "@"`, "***@ghcr.io/a/b:t" + sha},
		"user:sec/ret@x@ghcr.io/a/b:t":                    {`leave out what is before the "@"`, "***@ghcr.io/a/b:t"},
		"user:secret@localhost:5000":                      {`leave out what is before the "@"`, "***@localhost:5000"},
		"https://user:secret@ghcr.io/a/b":                 {`leave "https://" out`, "https://***@ghcr.io/a/b"},
		"ghcr.io/a/b:t?token=secret":                      {"a reference has no query", "ghcr.io/a/b:t?***"},
		"ghcr.io/a/b?token=SECRET":                        {"a reference has no query", "ghcr.io/a/b?***"}, // which the grammar's own error quotes
		"https://ghcr.io/a/b?x=secret":                    {`leave "https://" out`, "https://ghcr.io/a/b?***"},
		"a/../b:t":                                        {"invalid reference format", ""},
	} {
		named, err := Parse(ref)
		require.Error(t, err, ref)
		assert.Nil(t, named)
		assert.ErrorContains(t, err, c.says, ref)
		assert.NotContains(t, strings.ToLower(err.Error()+Printable(ref)), "secret")
		if c.printed == "" {
			c.printed = ref
		}
		assert.Equal(t, c.printed, Printable(ref))
	}
}

// Whatever is taken is printed as it is, and what is not has no password in its error.
func FuzzParse(f *testing.F) {
	f.Add("ghcr.io/a/b:t" + sha)
	f.Add("https://user:secret@x")
	f.Fuzz(func(t *testing.T, ref string) {
		named, err := Parse(ref)
		if err != nil {
			require.Nil(t, named)
			return
		}
		require.Equal(t, ref, Printable(ref))
	})
}
