// Package fetch brings the layers of a planned tarball from a source into a sink, in
// ranges side by side, each straight to its place, and verifies every layer by its
// sha256.
//
// It knows no directory, no bucket and no registry: what it is given are a
// [tarball.Layout], a [tarball.Source], a [Sink], and what is there already. [Events]
// lets the caller keep an account, such as a [Journal] for the next attempt.
//
// A file is a part of the work: run.go is one fetch, schedule.go decides which range is read
// next and which connection is slow, connection.go reads one, origin.go is what is known of
// sources and hosts, budget.go how many connections there are and for whom, trouble.go when to
// give up, layer.go, hash.go and copy.go the layers.
package fetch
