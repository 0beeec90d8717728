// Package tagging derives every name that a cached image needs from two inputs:
// the image's reference and the branch that it was built from.
//
// It has pure functions only: no file, no network, no environment.
//
//	reference   308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5e…
//	branch      main
//	[Name]      pytorch-linux-jammy-rocm-n-py3
//	[Suffix]    main
//	[Tarball]   pytorch-linux-jammy-rocm-n-py3_main.tar
//	[RepoTag]   308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5e…
//	[Mirror]    ghcr.io/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5e…
//
// The last "-" part of the tag is the hash of the recipe that the image was
// built from. It changes whenever the recipe does, so it is left out of the
// tarball's name: a job asks for "the jammy image of main" and gets the newest.
// Tags that end otherwise lose what distinguishes them, see [Scheme.Stripped].
// A [Scheme] makes other names: with the whole tag, the repository, the
// platform, without the suffix, or of a name that is given. [Rules] map branches to
// suffixes, [MirrorRules] repositories to their mirrors.
//
// # What is guaranteed
//
// A name that these functions return is safe as one element of a path, by
// [CheckElement]. Input that does not lead to such a name is refused with an
// error that wraps [ErrReference], [ErrBranch], [ErrRules], [ErrScheme] or [ErrMirror];
// it is never repaired.
//
// All functions and methods but the two called Set are safe for concurrent use.
package tagging
