package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// list asks for a list and follows its links to the end; each page is one entry.
func (c *client) list(path, field string) (pages []string) {
	c.t.Helper()
	for path != "" {
		require.Less(c.t, len(pages), 20, "the links have no end")
		got := c.get(path)
		require.Equal(c.t, http.StatusOK, got.StatusCode, "%s", got.body)
		require.Equal(c.t, "application/json", got.Header.Get("Content-Type"))
		require.Equal(c.t, int64(len(got.body)), got.ContentLength)
		var body map[string]json.RawMessage
		require.NoError(c.t, json.Unmarshal(got.body, &body))
		pages = append(pages, string(body[field]))
		path = nextOf(c.t, got)
	}
	return pages
}

// nextOf returns the path that a Link header has, "" without one.
func nextOf(t *testing.T, got *response) string {
	t.Helper()
	link := got.Header.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutSuffix(link, `>; rel="next"`)
	require.True(t, ok, link)
	target, ok = strings.CutPrefix(target, "<")
	require.True(t, ok, link)
	_, err := url.Parse(target)
	require.NoError(t, err)
	return target
}

func TestTags(t *testing.T) {
	s := newShelf(t)
	for i, ref := range []string{"v3", "v1", "v10", "Beta", "v2", "_x"} {
		s.stock(fmt.Sprintf("image%d", i), "registry.test/team/image:"+ref, "a")
	}
	s.stock("same", testRef, "b") // another image of a tag that is there
	s.stock("far", "other.test/team/image:far", "b")
	s.stock("other", "registry.test/team/other:v9", "b")
	c := connect(s)
	const path = "/v2/registry.test/team/image/tags/list"
	assert.Equal(t, []string{`["Beta","_x","v1","v10","v2","v3"]`}, c.list(path, "tags"))
	assert.Equal(t, []string{`"registry.test/team/image"`}, c.list(path, "name"))
	assert.Equal(t, []string{`["far"]`}, c.list("/v2/team/image/tags/list?ns=other.test", "tags"))

	assert.Equal(t, []string{`["Beta","_x"]`, `["v1","v10"]`, `["v2","v3"]`}, c.list(path+"?n=2", "tags"))
	assert.Equal(t, []string{`["Beta","_x","v1","v10"]`, `["v2","v3"]`}, c.list(path+"?n=4", "tags"))
	assert.Equal(t, []string{`["Beta","_x","v1","v10","v2","v3"]`}, c.list(path+"?n=6", "tags"))
	assert.Equal(t, []string{`["Beta","_x","v1","v10","v2","v3"]`}, c.list(path+"?n=600", "tags"))
	assert.Equal(t, []string{`["v2","v3"]`}, c.list(path+"?last=v10", "tags"))
	assert.Equal(t, []string{`["v2"]`, `["v3"]`}, c.list(path+"?last=v11&n=1", "tags"), "the last one need not be there")
	assert.Equal(t, []string{`[]`}, c.list(path+"?last=v3&n=2", "tags"))
	assert.Equal(t, []string{`["v1"]`, `["v10"]`, `["v2"]`, `["v3"]`}, c.list(path+"?last=_x&n=1", "tags"))
	assert.Equal(t, []string{`["Beta"]`, `["_x"]`, `["v1"]`, `["v10"]`, `["v2"]`, `["v3"]`}, c.list("/v2/team/image/tags/list?n=1&ns=registry.test", "tags"), "the links are to the same registry")
	assert.Equal(t, []string{`[]`}, c.list(path+"?n=0", "tags"))

	for _, bad := range []string{"-1", "x", "", "1.5", "99999999999999999999"} {
		c.requireRefused(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", path+"?n="+bad)
		c.requireRefused(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "/v2/_catalog?n="+bad)
	}
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/none/tags/list")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/team/image/tags/list?ns=third.test")
	assert.Empty(t, c.do(http.MethodHead, path).body)
}

func TestRepositories(t *testing.T) {
	s := newShelf(t)
	c := connect(s)
	assert.Equal(t, []string{`[]`}, c.list("/v2/_catalog", "repositories"), "not null")
	assert.Equal(t, []string{`[]`}, c.list("/v2/_catalog?n=3&last=x", "repositories"))
	s.stock("d", "registry.test:5000/team/port:v1", "a")
	s.stock("c", "registry.test/team/image:v1", "a")
	s.stock("b", "registry.test/team/image:v2", "b")
	s.stock("a", "debian:12", "c")
	const debian, image, port = "docker.io/library/debian", "registry.test/team/image", "team/port"
	assert.Equal(t, []string{`["` + debian + `","` + image + `"]`}, c.list("/v2/_catalog", "repositories"), "a host with a port cannot be in a name")
	c = connectWith(s, Options{Registry: "registry.test:5000"})
	assert.Equal(t, []string{`["` + debian + `","` + image + `","` + port + `"]`}, c.list("/v2/_catalog", "repositories"))
	assert.Equal(t, []string{`["` + debian + `"]`, `["` + image + `"]`, `["` + port + `"]`}, c.list("/v2/_catalog?n=1", "repositories"))
	assert.Equal(t, []string{`["` + port + `"]`}, c.list("/v2/_catalog?n=1&last="+image, "repositories"))
	assert.Equal(t, []string{`[]`}, c.list("/v2/_catalog?n=0", "repositories"))
	// All that is listed is there under its name.
	for _, r := range []string{debian, image, port} {
		assert.NotEmpty(t, c.list("/v2/"+r+"/tags/list", "tags"))
	}
	assert.Empty(t, c.reported.take())
}
