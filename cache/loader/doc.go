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
// first: an image that is there costs two requests. Of one that is not, it sends
// an archive with the metadata and the layers that no local image has, made from
// the tarball while it is sent.
//
// No engine documents that it loads an archive without the layers that it has.
// So the result is proven: the image's identity, its reference, and that all its
// layers can be used ([Engine], Prove). If anything is off, or the engine is none of those
// that the tests have tried, the whole archive is sent.
//
// Each layer's digest is proven on the way; of a damaged tarball the engine never
// sees the end.
//
// # Engines
//
// [Connect] speaks Docker's Engine API (https://docs.docker.com/reference/api/engine/)
// to Docker, with its classic store or containerd's, and to podman's compatible
// socket. [ConnectContainerd] is for a containerd alone, through its program ctr.
// Others can be had by implementing [Engine].
package loader
