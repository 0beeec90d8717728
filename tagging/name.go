package tagging

// Name returns the name that an image keeps across rebuilds: its tag without
// the last "-" part. A tag without a "-" is the name as it is.
//
// The registry may have a port and the reference may have a digest beside its
// tag; neither enters the name. The error wraps [ErrReference]: an empty or
// malformed reference, one without a tag, or a tag that leaves nothing or a
// ".." in the name.
func Name(image string) (string, error) {
	r, err := parse(image)
	if err != nil {
		return "", err
	}
	return Scheme{}.group(image, r, "")
}

// Tarball returns the file name under which an image that was built from a
// branch is stocked: <name>_<suffix>.tar. Nil rules mean [PyTorchRules].
//
// The errors are those of [Name] and [Suffix].
func Tarball(image, branch string, rules Rules) (string, error) {
	names, err := Scheme{Rules: rules}.Names(image, branch, "")
	return names.Tarball, err
}
