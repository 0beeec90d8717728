// Package filesystems has no code, only tests: of the directory that many share,
// on real file systems and with many processes.
package filesystems
