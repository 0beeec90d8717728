package tagging

import "fmt"

// Tarball returns the file name under which an image that was built from a
// branch is stocked: <name>_<suffix>.tar. Nil rules mean [DefaultRules].
//
// The errors are those of [Name] and of [Rules.Suffix].
func Tarball(image, branch string, rules Rules) (string, error) {
	name, err := Name(image)
	if err != nil {
		return "", err
	}
	suffix, err := rules.Suffix(branch)
	if err != nil {
		return "", err
	}
	tarball := name + "_" + suffix + ".tar"
	if err := checkElement(tarball); err != nil {
		return "", fmt.Errorf("%w %q: the tarball's name %q %w", ErrReference, image, tarball, err)
	}
	return tarball, nil
}
