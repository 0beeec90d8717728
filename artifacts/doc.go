// Package artifacts reads what a finished build run left behind.
//
// At present that is one thing: the text files in which builds name their
// images, one NAME=REFERENCE to a line, as [ReadOutputs] reads them from a
// directory. The workflow that this project replaces pasted such files unread
// into its own outputs, where any line could become any output.
//
// Not here yet: downloading the artifacts of a run, the Actions event, and
// workflow commands.
package artifacts
