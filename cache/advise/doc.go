// Package advise predicts what each way of giving an image to jobs costs a fleet, and which of
// them pays, by rates that were measured.
//
//	ways, err := advise.Predict(rates, image, fleet) // rates are those of package measure
//	fmt.Println(advise.Recommend(ways, nil).Reason)
//
// [Predict] and [Recommend] are pure functions. So is [Pays], which needs only what a run that
// stocks an image knows by itself.
//
// # The formulas
//
// Bytes are those of layers as they are served, compressed: S all of them, M = New·S those
// of a new build that its predecessor does not have, in one layer. Rates are those of [Rates]:
// r one connection to the registry, R all connections, f its first byte; s one reader of the
// storage, s* many, K how long it takes to find and open a tarball; i the engine's intake, u its
// unpacking, F its seconds per load, P how long load-image takes to start and to learn that the engine
// has the image, D how long the engine's own client does, and G how much longer a pull of such an
// image takes. Where the engine pulls, i, u and F are those of [Pulling].
//
// A job finds one of three things: an engine that has nothing (cold), one that has the build before
// (delta), one that has the image (present). An engine that lives for N jobs is cold in 1/N of
// them; one that lives on is never cold but once. Of the others, with j jobs a day on each machine
// and b builds a day, both at any time, b/(b+j) are the first after a build. The mean of the
// three is the seconds of a job.
//
//	pull(bytes, f, r, R): layers in order, 3 at a time, one connection each. A layer begins f
//	    after its turn, and gets min(r, R / layers that get bytes). It is unpacked, at u, when it has
//	    come whole and the one before is unpacked. The end is that of the last layer.
//
//	pull         cold     D + 8f + pull(S, f, r, min(R, i)) + F: connections, login, token, manifest, config
//	             delta    D + 8f + pull(M, f, r, min(R, i)) + F
//	             present  D + 7f + G: no config is asked for
//	docker-load  cold     D + S/min(s, i) + S/u + F
//	             delta    D + S/min(s, i) + M/u + F: the whole archive is sent
//	             present  D + S/min(s, i) + F
//	load-image   cold     P + L + S/min(s, i) + S/u + F, or, of an engine that is made to pull,
//	                      P + L + pull(S, 0, s, min(s*, i)) + F; L is K and to lock
//	             delta    the same of M
//	             present  P + K
//	serve-cache  cold     D + pull(S, 0, s, min(s*, i)) + F
//	             delta    the same of M
//	             present  D + G
//	keep-loaded           as load-image, and D where the image is present; but a job finds the build before
//	                      only if it comes while the new one is loaded, in b·delta/86400 of the time
//	engine-root           C + A + D, whatever the engine of another job has: to clone and mount, or
//	                      to copy what is unpacked, at min(s, write rate); to start; to ask
//
// From a bucket, load-image reads at s*: it uses several connections. Where a rate is
// the minimum of two, the seconds are those of the slower: they are of [Cost.Storage] if that is the
// storage. While a layer is unpacked, the seconds are the engine's, whatever is read meanwhile.
//
// Once, to begin with, an image is stocked: 4f + S/min(R, write rate) + to lock and to rename. Each
// build is stocked too: M in place of S, and what it shares, S−M, is cloned, copied by a bucket's
// server, or else copied at min(s, write rate). Machines that do not share the directory do so each
// for itself. For engine-root a template is made of it: start, a load of S, or M, and to close it. Both
// are nobody's waiting, and are stated apart. A way breaks even at the job after which all seconds
// together, those before the first job, those of each build and those of jobs, are fewer than
// with plain pulls.
//
// A way is not possible if something it needs was not measured, or if it would move more bytes a day
// than its source can give in a day.
//
// # What is left out
//
// Jobs that begin at the same moment share the storage, and the registry: each is then slower
// than here. Where unpacking goes on beside a download, both are as fast as alone, which a
// machine of one or two processors may not manage. The page cache is not counted on: a second load
// of a tarball from the same machine may be faster.
package advise
