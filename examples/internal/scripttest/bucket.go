package scripttest

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// SetUpBucket gives a script a bucket in this process, as the server "bucket": $BUCKET is
// the address of a prefix in it, s3://bucket/images, and the environment has what leads
// there, and no other credentials.
func SetUpBucket(t testing.TB, env *testscript.Env) *buckettest.Server {
	t.Helper()
	server := buckettest.New(t, "bucket")
	env.Values["bucket"] = server
	env.Setenv("BUCKET", "s3://bucket/images")
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true") // nothing else is asked for credentials
	for name, value := range server.Env() {
		env.Setenv(name, value)
	}
	return server
}

// BucketCommands are for scripts with a bucket:
//
//	objects NAME...              these objects of the prefix and no other; what is recorded
//	                             beside tarballs may be there too
//	same NAME FILE               an object is what a file is
//	upload FILE NAME             a file becomes an object, as by another program
//	spoil NAME                   a byte of the last layer of a tarball is wrong
func BucketCommands() Commands {
	const prefix = "images/"
	server := func(ts *testscript.TestScript) *buckettest.Server { return ts.Value("bucket").(*buckettest.Server) }
	object := func(ts *testscript.TestScript, name string) []byte {
		content, ok := server(ts).Object(prefix + name)
		if !ok {
			ts.Fatalf("there is no object %s", name)
		}
		return content
	}
	return Commands{
		"objects": func(ts *testscript.TestScript, _ bool, args []string) {
			have := []string{}
			for _, key := range server(ts).Objects() {
				if name := strings.TrimPrefix(key, prefix); !strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".used") {
					have = append(have, name)
				}
			}
			if !slices.Equal(have, args) {
				ts.Fatalf("the bucket has %q, want %q", have, args)
			}
		},
		"same": func(ts *testscript.TestScript, _ bool, args []string) {
			if !bytes.Equal(object(ts, args[0]), []byte(ts.ReadFile(args[1]))) {
				ts.Fatalf("%s differs from %s", args[0], args[1])
			}
		},
		"upload": func(ts *testscript.TestScript, _ bool, args []string) {
			content, err := os.ReadFile(ts.MkAbs(args[0]))
			ts.Check(err)
			server(ts).Put(prefix+args[1], content, nil)
		},
		"spoil": func(ts *testscript.TestScript, _ bool, args []string) {
			content := bytes.Clone(object(ts, args[0]))
			t, err := tarball.Read(bytes.NewReader(content), int64(len(content)), args[0])
			ts.Check(err)
			layers := t.Layout.Layers()
			last := layers[len(layers)-1]
			content[last.Offset+last.Length/2] ^= 1
			server(ts).Put(prefix+args[0], content, server(ts).Metadata(prefix+args[0]))
		},
	}
}
