// Package engineflags are the flags of programs that load images into an engine.
package engineflags

import (
	"flag"
	"os"

	"github.com/dockercache/dockercache/cache/loader"
)

// Flags are where the engine is, and how it is loaded.
type Flags struct {
	// Host is where the engine is, after Check.
	Host loader.Host

	address string
}

// Register defines the flags: -host, and -lock-dir and -no-pull for load.
func (f *Flags) Register(set *flag.FlagSet, load *loader.Options) {
	set.StringVar(&f.address, "host", "", "where the engine is, as an `ADDRESS`: unix:///PATH, tcp://HOST:PORT without TLS, or containerd:///PATH for a containerd without Docker (default: as Docker's client finds it)")
	set.StringVar(&load.LockDir, "lock-dir", "", "a directory of this machine, `DIR`, in which this user's processes that load the same image find each other (default: one of this user's, below XDG_RUNTIME_DIR or the temporary one)")
	set.BoolVar(&load.NoPull, "no-pull", false, "send an archive, also to an engine that would rather pull from loopback: where a policy judges pulls by their names, as containerd's verifiers do")
}

// Check finds the engine, by the flag or as Docker's client does. It makes no connection.
func (f *Flags) Check() (err error) {
	if f.address == "" {
		f.Host, err = loader.Environment(os.Getenv)
	} else {
		f.Host, err = loader.ParseHost(f.address)
	}
	return err
}
