// Package registrytest is a registry in process, for tests: it serves the images
// that are pushed to it, over real HTTP on loopback, with faults that a real
// registry has but does not show on demand. Each fault is a named field of
// [Quirks].
//
//	server := registrytest.New(t)
//	ref, err := server.Push("team/image:tag", image)
//	server.SetQuirks(registrytest.Quirks{CutBodyAfter: 1 << 20})
package registrytest
