package server_test

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func ExampleNew() {
	dir := prepare() // cache.Open("/var/cache/images", nil)
	defer os.RemoveAll(dir.Path())
	s := httptest.NewServer(server.New(dir, nil)) // http.ListenAndServe
	defer s.Close()

	// What an engine does at "docker pull", of all that is there.
	registry := parse(s)
	repositories, err := remote.Catalog(context.Background(), registry)
	if err != nil {
		log.Fatal(err)
	}
	for _, repository := range repositories {
		image, err := remote.Image(registry.Repo(repository).Tag("v1"))
		if err != nil {
			log.Fatal(err)
		}
		layers, err := image.Layers()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(repository, len(layers))
	}
	// Output: registry.example/team/image 1
}

func ExampleOptions_authorize() {
	dir := prepare()
	defer os.RemoveAll(dir.Path())
	isUser := server.BasicAuth(func(user, password string) bool {
		return user == "ci" && subtle.ConstantTimeCompare([]byte(password), []byte("secret")) == 1
	})
	s := httptest.NewServer(server.New(dir, &server.Options{
		Authorize: func(r *http.Request, repository string) error {
			if err := isUser(r, repository); err != nil {
				return err
			}
			if repository != "" && !strings.HasPrefix(repository, "registry.example/team/") {
				return fmt.Errorf("%s is not for everybody", repository)
			}
			return nil
		},
	}))
	defer s.Close()

	image := parse(s).Repo("registry.example/team/image").Tag("v1")
	_, err := remote.Image(image)
	var answer *transport.Error
	fmt.Println(errors.As(err, &answer), answer.StatusCode)
	_, err = remote.Image(image, remote.WithAuth(&authn.Basic{Username: "ci", Password: "secret"}))
	fmt.Println(err)
	// Output:
	// true 401
	// <nil>
}

// prepare returns a directory with one tarball.
func prepare() *cache.Dir {
	path, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	dir, err := cache.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := tarballtest.Stock(dir, "image_main.tar", "registry.example/team/image:v1", 1000, "base"); err != nil {
		log.Fatal(err)
	}
	return dir
}

func parse(s *httptest.Server) name.Registry {
	registry, err := name.NewRegistry(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		log.Fatal(err)
	}
	return registry
}
