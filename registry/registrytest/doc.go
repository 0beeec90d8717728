// Package registrytest is a registry in process, for tests: it serves the images
// that are pushed to it, over real HTTP on loopback, with faults that a real
// registry has but does not show on demand. Each fault is a named field of
// [Quirks].
//
//	server := registrytest.New(t)
//	ref, err := server.Push("team/image:tag", image)
//	server.SetQuirks(registrytest.Quirks{CutBodyAfter: 1 << 20})
//
// Quirks that limit how much a registry serves: RequestsPerSecond refuses requests that
// come too fast (429), RetryAfter and RetryAfterText ask for a delay, FirstByteDelay makes
// a blob slow to begin, RangeStatus and IgnoreRange serve blobs in one piece alone. How
// fast bytes come is a [Throttle]'s: of each connection, also one that changes
// ([Throttle.Rate]), and of all.
package registrytest
