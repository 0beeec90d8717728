// Cache-admin looks after a directory of tarballs that docker-cache stocks.
//
//	cache-admin COMMAND [flags] [ARGUMENT...]
//
// The commands are list, verify, prune and info. See -h for them, and COMMAND -h
// for the flags of each.
package main
