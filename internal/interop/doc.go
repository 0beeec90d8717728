// Package interop has no code, only tests: they run this project against the
// registries and engines that its users have. An engine is started once, for all
// tests that use it, on loopback and in directories of its own.
package interop
