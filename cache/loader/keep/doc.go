// Package keep keeps the images of tarballs in an engine that lives longer than a job: it
// watches where the tarballs are, loads what is new, and removes what it has loaded before and
// nothing uses any more.
//
//	dir, err := cache.Open("/shared/images", nil)
//	keeper, err := keep.New(keep.Directory(dir), func(ctx context.Context) (loader.Engine, error) {
//		return loader.Open(ctx, host)
//	}, &keep.Options{Versions: 2})
//	go http.Serve(listener, keeper) // /healthz and /metrics
//	err = keeper.Run(ctx)           // until ctx ends
//
// A look at a directory reads its names and asks for the size and the time of each tarball. No
// file is opened and the engine is asked nothing as long as these are the same: there are no
// events from file servers about what other machines write, so it looks often. A look at a
// bucket is a request for each 1000 objects. What changed is opened, and loaded by
// [loader.Load], one image after the other, the newest first: an engine unpacks on one
// processor, and writes to one disk. Processes of one user on one machine load an image once.
//
// An image that cannot be loaded is tried again later and later, and does not keep the others
// waiting. From time to time the engine is asked whether it still has the images.
//
// # What is removed
//
// Only what a Keeper has loaded, or found in the engine when a tarball had it: it records that in
// a file. Of each tarball the newest versions stay, as many as [Options].Versions; what a
// container uses stays as long; a reference that names another image by now is left alone, and
// one that another tarball has. What was removed from the store stays in the engine.
package keep
