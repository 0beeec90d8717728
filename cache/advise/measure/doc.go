// Package measure finds out the rates that package advise predicts with, by samples.
//
//	storage, samples, err := measure.Directory(ctx, dir, nil)
//	registry, samples, err := measure.Registry(ctx, image, repository, nil)
//	engine, samples, err := measure.Engine(ctx, engine, image, repository, nil)
//	root, samples, err := measure.Root(ctx, dir, program)
//
// Each sample is bounded by time and by bytes, see [Limit], and says what it was: see [Sample]. By default
// all of them together take about a minute. A sample may take longer than its limit by what one
// read, write or load takes; ctx ends it sooner, but a load that has begun: an engine would go on with it,
// and have the image after it was to be removed.
//
// What is written to measure is removed in the end, also when ctx ends or something fails: files in a
// directory, an object in a bucket, images in an engine. Of a process that is killed a file may stay,
// .advise.<unique>.sample, which the next measurement of the directory removes when it is an hour old; or an
// image dockercache-advise.
//
// # What the rates are worth
//
// They are those of now: what other jobs do meanwhile counts. A file server may have in its memory what was
// just written, and then reads it faster than what was stocked yesterday; give
// [DirectoryOptions.Existing] where there is a tarball. What a file system does not drop from memory when it is
// asked to, such as tmpfs, is read from there.
package measure
