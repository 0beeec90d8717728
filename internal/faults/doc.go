// Package faults has no code, only tests: they fill tarballs through the whole
// stack, from a registry that does one thing wrong at a time, and look at both
// ends: the tarball, and what the registry was asked.
package faults
