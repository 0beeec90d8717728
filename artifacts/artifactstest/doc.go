// Package artifactstest is the part of the GitHub Actions API that package
// artifacts asks, with a storage on an origin of its own, in process, for tests.
// [Quirks] are the faults that it can have.
//
// It also reads what a job writes for the runner, as the runner does:
// [ParseOutputFile] and [ParseCommand].
package artifactstest
