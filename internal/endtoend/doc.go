// Package endtoend has no code, only tests: the example programs as a CI system
// runs them, with the names of real registries and the servers of GitHub and AWS
// in this process.
package endtoend
