// Serve-cache serves a directory of tarballs as a read-only registry, for engines and
// clusters that pull from it, or have it as a mirror.
//
//	serve-cache [-dir DIR] [-addr 127.0.0.1:5000]
//
// See -h for the flags and the exit codes.
package main
