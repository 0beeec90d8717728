// Package loader brings the image of a tarball into a container engine, sending
// no more than the engine lacks.
//
//	host, err := loader.Environment(os.Getenv)
//	engine, err := loader.Connect(ctx, host)
//	tarball, err := cache.ReadTarball(path)
//	result, err := loader.Load(ctx, engine, tarball, nil)
//
// "docker load" of a whole archive copies it into a temporary directory before it
// looks at the first layer, also when the image is there already. [Load] asks
// first: an image that is there costs two requests. One that is not goes one of two
// roads.
//
// An archive: with the metadata and the layers that no local image has, made from the
// tarball while it is sent. No engine documents that it loads such a one.
//
// A pull: the engine is told to pull from a registry on loopback that has this image
// alone, by a tag that nobody else knows (other users of the machine who know its
// digests can read it too), and ends with the load ([Puller]). It asks for
// what it lacks, and unpacks layers while others come, so it is faster wherever it was
// measured but with Docker's classic store. It goes to engines that are reached over a
// socket; one that does not ask, as from a network namespace of its own, or fails, is
// sent an archive.
//
// Whichever it was, the result is proven: the image's identity, its reference, and that
// all its layers can be used ([Engine], Prove). If anything is off, or the engine is none
// of those that the tests have tried, the whole archive is sent.
//
// Each layer's digest is proven: on the way; by the engine when it pulls; and beside an
// engine that proves layers too, while it unpacks them ([LayerProver]). Of a damaged
// tarball none has an image in the end.
//
// # Engines
//
// [Connect] speaks Docker's Engine API (https://docs.docker.com/reference/api/engine/)
// to Docker, with its classic store or containerd's, and to podman's compatible
// socket. [ConnectContainerd] is for a containerd alone, through its program ctr.
// Others can be had by implementing [Engine].
package loader
