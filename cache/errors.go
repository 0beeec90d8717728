package cache

import "errors"

var (
	// ErrInvalidName is wrapped when a name cannot be that of a tarball in a [Dir]. It
	// must end in .tar, must not begin with a dot, must not contain "/", "\\" or a NUL
	// byte, and has at most 200 bytes.
	ErrInvalidName = errors.New("unusable tarball name")

	// ErrOtherImage is wrapped when a tarball holds an image of another repository, which
	// would be lost, see [PutOptions.Replace]. The text has both references.
	ErrOtherImage = errors.New("another image has this name")

	// ErrReplaced is wrapped when a file is no longer the one that was read, and that
	// one cannot be read any more.
	ErrReplaced = errors.New("replaced by another file since it was read")

	// ErrPreempted is the cause with which the work on a tarball ends when a newer
	// build run has asked for the tarball, see [PutOptions.Preempt].
	ErrPreempted = errors.New("a newer run has taken the tarball over")

	// ErrTooSlow is wrapped when a source gives less than [PutOptions.MinRate].
	ErrTooSlow = errors.New("the source is too slow")

	// ErrInUse is wrapped when a tarball cannot be removed since it is being read or
	// written.
	ErrInUse = errors.New("in use")

	// ErrQuota is wrapped when a tarball would make a directory larger than
	// [Options.Quota].
	ErrQuota = errors.New("the directory's quota is used up")
)
