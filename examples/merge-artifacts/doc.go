// Merge-artifacts downloads what a build run uploaded, merges it into one
// directory, and passes the images that it names on as outputs of a job.
//
//	merge-artifacts [flags] [-dir DIR]
//
// In a workflow started by workflow_run or workflow_dispatch it finds the run in
// the event; elsewhere -repo and -run-id name it. See -h for the flags and the
// exit codes.
package main
