package command

import (
	"io"
	"os"
)

// IsFile tells whether what is printed ends in a file, and not at a person or the
// runner of a CI system: a command to that, such as one that masks a secret, would
// leave the secret there.
func IsFile(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}
