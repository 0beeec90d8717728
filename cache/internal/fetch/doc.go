// Package fetch brings the layers of a planned tarball from a source into a sink, in
// ranges side by side, each straight to its place, and verifies every layer by its
// sha256.
//
// It knows no directory, no bucket and no registry: what it is given are a
// [tarball.Layout], a [tarball.Source], a [Sink], and what is there already. [Events]
// lets the caller keep an account, such as a [Journal] for the next attempt.
package fetch
