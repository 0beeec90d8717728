// Package artifactstest is a server in process, for tests, of the part of the
// GitHub Actions API that package artifacts uses, with a storage on an origin of
// its own. [Quirks] are the faults that it can have.
//
// It also reads what a job writes for its runner, as the runner does:
// [ParseOutputFile] and [ParseCommand].
package artifactstest
