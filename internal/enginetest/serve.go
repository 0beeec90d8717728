package enginetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// liesID is the identity of the image that [Quirks].LieAboutLayers adds.
const liesID = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

var versioned = regexp.MustCompile(`^/v([0-9]+\.[0-9]+(?:\.[0-9]+)?)(/.*)$`)

func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	record := &Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
	if m := versioned.FindStringSubmatch(record.Path); m != nil {
		record.Version, record.Path = m[1], m[2]
	}
	e.mu.Lock()
	e.requests = append(e.requests, record)
	q := e.quirks
	e.mu.Unlock()
	if q.Before != nil {
		q.Before(*record)
	}
	if q.NotAnEngine {
		fmt.Fprint(w, "<html>It works!</html>")
		return
	}
	path := record.Path
	if path == "/images/load" && r.Method == http.MethodPost {
		e.load(w, r, record, q)
		return
	}
	if reference := e.pulled(r, path); reference != "" {
		e.pull(w, r, reference, q)
		return
	}
	image, isImage := strings.CutPrefix(path, "/images/")
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case path == "/_ping":
		e.ping(w)
	case record.Version == "":
		fail(w, http.StatusBadRequest, "this engine wants the API's version in each request")
	case path == "/info" && r.Method == http.MethodGet:
		e.info(w, q)
	case path == "/version" && r.Method == http.MethodGet:
		say(w, http.StatusOK, map[string]any{"Components": []map[string]string{
			{"Name": "Engine", "Version": e.options.Version}, {"Name": "containerd", "Version": q.ContainerdVersion},
		}})
	case path == "/images/json" && r.Method == http.MethodGet:
		e.list(w, q)
	case isImage && strings.HasSuffix(image, "/json") && r.Method == http.MethodGet:
		e.inspect(w, strings.TrimSuffix(image, "/json"), r.URL.Query().Has("manifests"), q)
	case isImage && strings.HasSuffix(image, "/tag") && r.Method == http.MethodPost:
		e.tag(w, strings.TrimSuffix(image, "/tag"), r.URL.Query().Get("repo")+":"+r.URL.Query().Get("tag"), q)
	case isImage && r.Method == http.MethodDelete:
		e.remove(w, image, r.URL.Query().Has("force"), q)
	case path == "/containers/create" && r.Method == http.MethodPost:
		e.create(w, r, q)
	case strings.HasPrefix(path, "/containers/") && r.Method == http.MethodDelete:
		id := strings.TrimPrefix(path, "/containers/")
		if _, ok := e.containers[id]; !ok {
			fail(w, http.StatusNotFound, "No such container: "+id)
			return
		}
		delete(e.containers, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusNotFound, "page not found")
	}
}

func say(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func fail(w http.ResponseWriter, status int, message string) {
	say(w, status, map[string]string{"message": message})
}

func (e *Engine) ping(w http.ResponseWriter) {
	w.Header().Set("Api-Version", e.apiVersion())
	if e.options.Kind == Podman {
		w.Header().Set("Libpod-Api-Version", e.options.Version)
	}
	fmt.Fprint(w, "OK")
}

// apiVersion is that of the engine's version. It has manifests from 1.48 on.
func (e *Engine) apiVersion() string {
	switch {
	case e.options.Kind == Podman:
		return "1.41"
	case strings.HasPrefix(e.options.Version, "28.") || strings.HasPrefix(e.options.Version, "29."):
		return "1.51"
	}
	return "1.41"
}

func (e *Engine) info(w http.ResponseWriter, q Quirks) {
	if q.DenyInfo {
		fail(w, http.StatusForbidden, "authorization denied by plugin test: not for you")
		return
	}
	answer := map[string]any{"ID": "ENGINE:" + e.dir, "ServerVersion": e.options.Version, "Driver": "overlay2", "DriverStatus": [][2]string{{"Backing Filesystem", "extfs"}}}
	switch e.options.Kind {
	case Containerd:
		answer["Driver"] = "overlayfs"
		answer["DriverStatus"] = [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}
	case Podman:
		e.lastID++
		answer["ID"] = fmt.Sprintf("new-each-time-%d", e.lastID)
		answer["Driver"] = "overlay"
	}
	if q.Driver != "" {
		answer["Driver"] = q.Driver
	}
	if q.OldVersion {
		answer["ServerVersion"] = map[Kind]string{Classic: "19.03.15", Containerd: "24.0.9", Podman: "4.2.1"}[e.options.Kind]
	}
	say(w, http.StatusOK, answer)
}

// idOf is an identity as the engine writes it.
func (e *Engine) idOf(img *stored) string {
	if e.options.Kind == Podman {
		return img.id.Hex
	}
	return img.id.String()
}

func (e *Engine) list(w http.ResponseWriter, q Quirks) {
	list := []map[string]any{}
	for _, img := range e.store.images {
		list = append(list, map[string]any{"Id": e.idOf(img), "RepoTags": e.store.namesOf(img)})
	}
	if q.LieAboutLayers != nil || q.BrokenInspect {
		list = append(list, map[string]any{"Id": liesID, "RepoTags": []string{}})
	}
	say(w, http.StatusOK, list)
}

func (e *Engine) inspect(w http.ResponseWriter, name string, manifests bool, q Quirks) {
	if name == liesID && q.BrokenInspect {
		fail(w, http.StatusInternalServerError, "layer does not exist")
		return
	}
	if name == liesID && q.LieAboutLayers != nil {
		say(w, http.StatusOK, map[string]any{"Id": liesID, "RootFS": map[string]any{"Type": "layers", "Layers": q.LieAboutLayers}})
		return
	}
	img, err := e.store.find(name)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	answer := map[string]any{
		"Id": e.idOf(img), "RepoTags": e.store.namesOf(img),
		"RootFS": map[string]any{"Type": "layers", "Layers": img.diffIDs},
	}
	if e.options.Kind == Containerd && manifests && e.apiVersion() != "1.41" {
		unpacked := e.store.unpacked(img)
		if q.NothingUnpacked {
			unpacked = 0
		}
		answer["Manifests"] = []any{map[string]any{
			"ID": img.id, "Kind": "image", "Available": e.store.available(img) && !q.Incomplete,
			"ImageData": map[string]any{"Size": map[string]any{"Unpacked": unpacked}},
		}}
	}
	say(w, http.StatusOK, answer)
}

func (e *Engine) tag(w http.ResponseWriter, name, to string, q Quirks) {
	img, err := e.store.find(name)
	switch {
	case q.TagFails:
		fail(w, http.StatusInternalServerError, "no tags today")
	case err != nil:
		fail(w, http.StatusNotFound, err.Error())
	default:
		e.store.names[to] = img.id
		w.WriteHeader(http.StatusCreated)
	}
}

func (e *Engine) remove(w http.ResponseWriter, name string, force bool, q Quirks) {
	if q.TagFails {
		fail(w, http.StatusConflict, "image is in use")
		return
	}
	if img, err := e.store.find(name); err == nil && !force && len(e.store.namesOf(img)) < 2 {
		for id, used := range e.containers {
			if used == img.id {
				fail(w, http.StatusConflict, "conflict: unable to remove repository reference "+name+" (must force) - container "+id+" is using its referenced image")
				return
			}
		}
	}
	if err := e.store.remove(name); err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	say(w, http.StatusOK, []map[string]string{{"Untagged": name}})
}

func (e *Engine) create(w http.ResponseWriter, r *http.Request, q Quirks) {
	var asked struct{ Image string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if q.CreateFails {
		fail(w, http.StatusInternalServerError, "error creating overlay mount: no such file or directory")
		return
	}
	if q.NoSpace {
		fail(w, http.StatusInternalServerError, "mkdir /var/lib/docker/overlay2/1-init: no space left on device")
		return
	}
	img, err := e.store.find(asked.Image)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	if _, err := e.store.files(img); err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	say(w, http.StatusCreated, map[string]any{"Id": e.newContainer(img), "Warnings": slices.Clip([]string{})})
}

// newContainer returns the ID of a new container of an image.
func (e *Engine) newContainer(img *stored) string {
	e.lastID++
	id := fmt.Sprintf("%064x", e.lastID)
	e.containers[id] = img.id
	return id
}
