// Load-image brings container images from a directory of tarballs into an engine,
// sending no more than the engine lacks.
//
//	load-image [-dir DIR] [-branch BRANCH] IMAGE... || docker pull ...
//
// See -h for the flags and the exit codes.
package main
