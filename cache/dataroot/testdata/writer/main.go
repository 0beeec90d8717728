// Writer is what a container of the tests runs: it writes 10 MB.
package main

import "os"

func main() {
	if err := os.WriteFile("/written", make([]byte, 10_000_000), 0o600); err != nil {
		panic(err)
	}
	println("written")
}
