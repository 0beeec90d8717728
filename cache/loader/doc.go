// Package loader brings the image of a tarball into a container engine, sending
// no more than the engine lacks.
//
//	host, err := loader.Environment(os.Getenv) // as Docker's client finds it
//	engine, err := loader.Open(ctx, host)      // Docker, podman or containerd
//	stocked, err := dir.Get(ctx, "py3.12_main.tar")
//	result, err := loader.Load(ctx, engine, stocked, nil)
//
// "docker load" of a whole archive copies it into a temporary directory before it
// looks at the first layer, also when the image is there already. [Load] asks
// first: an image that is there costs two requests. One that is not is sent in one of
// two ways.
//
// An archive: with the metadata and the layers that no local image has, made from the
// tarball while it is sent. No engine documents that it accepts an archive without
// layers it already has.
//
// A pull: the engine is asked to pull from a registry on loopback that has this image
// alone, by a tag that no other process knows (other users of the machine who know its
// digests can read it too), and that ends with the load ([Puller]). It asks for
// what it lacks, and unpacks layers while others come, so it is faster wherever it was
// measured but with Docker's classic store. It is used with engines that are reached over
// a socket; one that does not ask, as from a network namespace of its own, or fails, is
// sent an archive.
//
// In both ways the result is verified: the image's identity, its reference, and that
// all its layers can be used. If anything is off, or no test has tried this kind of
// engine, the whole archive is sent. Engines that name an image before it is unpacked
// ([EarlyNamer]) get it under a name of its own, as in a pull; the reference moves when the
// image was verified. So what has the reference keeps it through a load that fails: a
// damaged tarball, a full disk, an engine that is killed, a context that ends.
//
// Each layer's digest is verified: on the way; by the engine when it pulls; and beside an
// engine that verifies layers too, while it unpacks them ([LayerVerifier]). A damaged
// tarball never becomes an image. Whether the engine can unpack layers in zstd is known by
// its version, before anything is sent ([ZstdReader]).
//
// What docker save has written is loaded by way of [tarball.OpenSaved]; set Whole and NoPull
// of [Options] for it: a compressed one can only be read in order.
//
// # Engines
//
// Docker's Engine API (https://docs.docker.com/reference/api/engine/) reaches Docker,
// with its classic store or containerd's, and podman's compatible socket. A containerd
// alone is reached through its program ctr. Others can be had by implementing [Engine].
//
// # Concurrency
//
// [Load] may be called concurrently, also with one engine and one tarball. Progress,
// Unpacking and Logger of [Options] are called during the call only. A [Host] is a value.
package loader
