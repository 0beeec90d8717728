// Package enginetest is a container engine in process, for tests: as much of
// Docker's Engine API as a loader of images uses, on a socket, on loopback, or
// with TLS. It reads archives and verifies them as the real engines do, keeps in
// memory what it is sent, and can be asked what that is. [Quirks] are the faults
// that it can have.
//
//	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
//	docker, err := loader.Open(ctx, loader.Host{Address: engine.Address()})
//	files, err := engine.Files("docker.io/team/image:tag")
package enginetest
