package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// api is Docker's Engine API, for what the loader does not do.
type api struct{ client *http.Client }

func newAPI(t *testing.T, address string) *api {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &api{&http.Client{Transport: transport}}
}

func (a *api) call(t *testing.T, method, path string, request any, read func(io.Reader)) {
	t.Helper()
	var body io.Reader
	if request != nil {
		raw, err := json.Marshal(request)
		require.NoError(t, err)
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://engine"+path, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, said)
	}
	if read != nil {
		read(resp.Body)
	}
}

// files gives what a container of an image has in its file system.
func (a *api) files(t *testing.T, reference string) map[string]string {
	t.Helper()
	id := a.create(t, reference)
	defer a.removeContainer(t, id)
	found := map[string]string{}
	a.call(t, http.MethodGet, "/containers/"+id+"/export", nil, func(r io.Reader) { readFiles(t, r, found) })
	return found
}

// create creates a container, and does not start it.
func (a *api) create(t *testing.T, reference string) (id string) {
	t.Helper()
	var created struct{ ID string }
	a.call(t, http.MethodPost, "/containers/create", map[string]any{
		"Image": reference, "Cmd": []string{"/x"}, "NetworkDisabled": true, "HostConfig": map[string]any{"NetworkMode": "none"},
	}, func(r io.Reader) { require.NoError(t, json.NewDecoder(r).Decode(&created)) })
	return created.ID
}

func (a *api) removeContainer(t *testing.T, id string) {
	t.Helper()
	a.call(t, http.MethodDelete, "/containers/"+id+"?force=1", nil, nil)
}

// use creates a container, which release removes.
func (a *api) use(t *testing.T, reference string) (release func()) {
	t.Helper()
	id := a.create(t, reference)
	return func() { a.removeContainer(t, id) }
}

func (a *api) remove(t *testing.T, reference string) {
	t.Helper()
	a.call(t, http.MethodDelete, "/images/"+reference, nil, nil)
}

// removeAll removes all images.
func (a *api) removeAll(t *testing.T) {
	t.Helper()
	for _, image := range a.images(t) {
		a.remove(t, image+"?force=1")
	}
	require.Empty(t, a.images(t))
}

// images returns the IDs of all images.
func (a *api) images(t *testing.T) (ids []string) {
	t.Helper()
	var list []struct{ ID string }
	a.call(t, http.MethodGet, "/images/json", nil, func(r io.Reader) { require.NoError(t, json.NewDecoder(r).Decode(&list)) })
	for _, image := range list {
		ids = append(ids, image.ID)
	}
	return ids
}

func (a *api) containers(t *testing.T) int {
	t.Helper()
	var list []any
	a.call(t, http.MethodGet, "/containers/json?all=1", nil, func(r io.Reader) { require.NoError(t, json.NewDecoder(r).Decode(&list)) })
	return len(list)
}
