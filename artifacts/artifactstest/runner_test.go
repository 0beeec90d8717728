package artifactstest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// What is forged by pasting text unread is found here as the runner finds it.
func TestParseOutputFile(t *testing.T) {
	type outputs = []artifactstest.Output
	for content, want := range map[string]outputs{
		"":                       nil,
		"\n\n":                   nil,
		"a=1":                    {{Name: "a", Value: "1"}},
		"a=1\nb=2=3\n\na=4\n":    {{Name: "a", Value: "1"}, {Name: "b", Value: "2=3"}, {Name: "a", Value: "4"}},
		"a=x<<E\n":               {{Name: "a", Value: "x<<E"}},
		"=1":                     {{Name: "", Value: "1"}},
		"a=1\r\n":                {{Name: "a", Value: "1\r"}},
		" a =1":                  {{Name: " a ", Value: "1"}},
		"a<<E\n1\nb=2\nE\nc=3\n": {{Name: "a", Value: "1\nb=2"}, {Name: "c", Value: "3"}},
		"a<<E=F\n1\nE=F":         {{Name: "a", Value: "1"}},
		"a<<E\nE\n":              {{Name: "a", Value: ""}},
		"a<<E\n\n E\nE \nE\n":    {{Name: "a", Value: "\n E\nE "}},
		"one=1two=2":             {{Name: "one", Value: "1two=2"}}, // a file without a last line's end
	} {
		got, err := artifactstest.ParseOutputFile(content)
		require.NoError(t, err, "%q", content)
		assert.Equal(t, want, outputs(got), "%q", content)
	}
	for _, content := range []string{"plain", "a<<", "<<E\nE", "a<<E", "a<<E\n1", "a<<E\n1\nEE\n"} {
		_, err := artifactstest.ParseOutputFile(content)
		require.Error(t, err, "%q", content)
	}
}
