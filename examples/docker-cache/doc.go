// Docker-cache stocks a directory with container images as tarballs.
//
//	docker-cache [flags] IMAGE...
//
// Each IMAGE becomes DIR/<name>_<suffix>.tar: the name is its tag without the
// last "-" part, the suffix comes from the branch. See -h for the flags and the
// exit codes.
package main
