// Package interop has no code, only tests: they run this project against the
// registries and engines that its users have. Each test starts what it needs,
// on loopback and in directories of its own, and ends it.
package interop
