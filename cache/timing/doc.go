// Package timing says how the time of a piece of work on an image divides into phases.
//
// Stocking, loading, cloning and filling notify an [Observer] of what they do. At each moment they do
// one thing: a phase begins where another ends, and the phases of a piece of work together are
// its time. Where several things happen at once, the phase is the one without which the others
// cannot end. [Recorder] is the observer that adds the phases up.
package timing
