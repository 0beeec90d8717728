package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dockercache/dockercache/examples/internal/scripttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tarball-name": main})
}

func TestScripts(t *testing.T) {
	scripttest.Run(t, nil, nil)
}
