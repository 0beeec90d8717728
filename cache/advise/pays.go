package advise

import "fmt"

// Pays reports whether an image that is stocked can pay at all, by rates that the run which
// stocks it knows: of Rates.Registry the rate of one connection and of all, of Rates.Storage
// ReadOne, or, where that is 0, Write: storage mostly reads no slower than it writes. Fields of which
// nothing is known may be 0, and a part of Rates may be nil; then it reports true.
//
// It reports false only if the storage needs longer for the bytes that a job lacks than a plain pull
// needs for the same, by more than 10 % and a second. Then no way that reads them when a job waits
// can be faster: not load-image, not docker load, not serve-cache, whatever the engine is. why
// says so, with the numbers, in a sentence for people without a full stop. The way of engine-root by
// reflink reads nothing, so it reports true for a storage with reflinks.
func Pays(r Rates, i Image, f Fleet) (ok bool, why string) {
	if r.Registry == nil || r.Storage == nil || i.Check() != nil || r.Storage.Reflink {
		return true, ""
	}
	s, what := r.Storage.ReadOne, "reads"
	if s == 0 {
		s, what = r.Storage.Write, "takes"
	}
	c := checker{}
	if first(c.rate("", s), c.rate("", r.Registry.Connection), c.rate("", r.Registry.All), c.seconds("", r.Registry.FirstByte)) != nil {
		return true, ""
	}
	layers, of := i.Layers, "the image"
	if f.Check() == nil && f.JobsPerEngine == 0 && f.BuildsPerDay > 0 { // engines have the build before
		layers, of = newPrediction(Rates{}, i, f).delta, "a build's new bytes"
	}
	size := Image{Layers: layers}.Size()
	pull := 0.0
	for _, came := range (link{r.Registry.FirstByte, r.Registry.Connection, r.Registry.All}).arrivals(layers) {
		pull = max(pull, came)
	}
	if read := float64(size) / s; read > 1.1*pull && read > pull+1 {
		return false, fmt.Sprintf("the storage %s %s/s, so %s (%s) takes %s to read; a plain pull gets it in %s, over at most %d connections of %s/s",
			what, bytes(s), of, bytes(float64(size)), duration(read), duration(pull), pullsAtOnce, bytes(min(r.Registry.Connection, r.Registry.All)))
	}
	return true, ""
}
