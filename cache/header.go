package cache

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
)

const (
	// tarBlock is the unit of a tar archive.
	tarBlock = 512
	// layerAlign is what the data offset of a layer is a multiple of. 4096 is
	// the block size of XFS, btrfs and ext4: copy_file_range shares extents
	// only between offsets aligned to it.
	layerAlign = 4096
)

// tarHeader renders the header of an entry, a directory if name ends in "/", that begins at the
// offset at of the archive. With align its data begins at a multiple of
// layerAlign: a PAX comment of the right length stands before the header. Every
// loader that was tried skips it, whereas padding files would be copied into
// the engines' stores.
//
// archive/tar renders, always: from 8 GiB on the size needs a PAX record too,
// and a header of another length.
func tarHeader(name string, size, at int64, align bool) ([]byte, error) {
	if !align {
		return renderHeader(name, size, "")
	}
	tries := []int{0, 1} // bytes of comment
	for i := 0; i < len(tries); i++ {
		h, err := renderHeader(name, size, strings.Repeat(" ", tries[i]))
		past := int((at + int64(len(h))) % layerAlign)
		if err != nil || past == 0 {
			return h, err
		}
		if i != 1 {
			continue
		}
		// Each further 512 bytes of comment move the data one block on, so this many
		// are needed; unless on the way the record's own length field gets one digit
		// longer, and with it the record one block: then the first that does. The bytes
		// of a tarball must be the same each time.
		tries = append(tries, 1+layerAlign-past)
		for more := tarBlock; more <= layerAlign; more += tarBlock {
			tries = append(tries, 1+more)
		}
	}
	return nil, fmt.Errorf("tar header of %s at %d: no comment aligns the data", name, at)
}

func renderHeader(name string, size int64, comment string) ([]byte, error) {
	h := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     0o644,
		Format:   tar.FormatPAX,
	}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	if comment != "" {
		h.PAXRecords = map[string]string{"comment": comment}
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
		return nil, fmt.Errorf("tar header of %s: %w", name, err)
	}
	return buf.Bytes(), nil
}

// tarPadding returns the zeros that follow size bytes of data.
func tarPadding(size int64) []byte {
	return make([]byte, -size&(tarBlock-1))
}

// tarTrailer is the end of an archive: two empty blocks.
func tarTrailer() []byte { return make([]byte, 2*tarBlock) }
