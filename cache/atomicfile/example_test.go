package atomicfile_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dockercache/dockercache/cache/atomicfile"
)

func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "images.txt")
	err = atomicfile.WriteFile(path, 0o666, func(f *os.File) error {
		_, err := fmt.Fprintln(f, "py3.12_main.tar")
		return err
	})
	if err != nil {
		panic(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	fmt.Print(string(content))
	// Output: py3.12_main.tar
}
