package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

const (
	// layersAtATime is how many layers are read at once.
	layersAtATime = 2
	// fillBuffer is the unit of reading and writing: large enough that system
	// calls cost nothing beside sha256, small enough to stay in the CPU's cache.
	fillBuffer = 256 << 10
)

// Fill writes all that the layout plans to dst: the literal bytes, and each
// layer read from src, whose size and sha256 are proven. It returns how many
// bytes came from src, also when it fails.
//
// After an error dst holds nothing that may be used. Bytes that are not the
// layer's wrap [ErrBlobSize] or [ErrBlobDigest]; other errors are those of src
// and dst, and say which of the two it was.
//
// Memory: 256 KiB for each of the two layers that are read at a time.
func Fill(ctx context.Context, dst io.WriterAt, layout *Layout, src BlobSource) (downloaded int64, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(layersAtATime)
	counts := make([]int64, len(layout.segments))
	for i, s := range layout.segments {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if !s.IsBlob() {
				if _, err := dst.WriteAt(s.Literal, s.Offset); err != nil {
					return fmt.Errorf("write: %w", err)
				}
				return nil
			}
			n, err := fillLayer(ctx, dst, s, src)
			counts[i] = n
			if err != nil {
				return fmt.Errorf("layer %s: %w", s.Blob, err)
			}
			return nil
		})
	}
	err = group.Wait()
	for _, n := range counts {
		downloaded += n
	}
	return downloaded, err
}

func fillLayer(ctx context.Context, dst io.WriterAt, s Segment, src BlobSource) (n int64, err error) {
	hash := sha256.New()
	if s.Length > 0 {
		r, err := src.ReadRange(ctx, s.Blob, 0, s.Length)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		n, err = copyLayer(dst, s, io.TeeReader(r, hash))
		if err := errors.Join(err, r.Close()); err != nil {
			return n, err
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != s.Blob.Hex {
		return n, fmt.Errorf("%w: the %d bytes that were read have the digest sha256:%s: the source is damaged, or something on the way changed them", ErrBlobDigest, n, got)
	}
	return n, nil
}

// copyLayer copies all of r and proves that it is as long as the segment. It
// never writes beyond the segment, whatever r gives.
func copyLayer(dst io.WriterAt, s Segment, r io.Reader) (n int64, err error) {
	buf := make([]byte, min(fillBuffer, s.Length+1))
	for {
		got, readErr := r.Read(buf)
		if n+int64(got) > s.Length {
			return n, fmt.Errorf("%w: the source gives more than the %d bytes that the manifest declares", ErrBlobSize, s.Length)
		}
		if got > 0 {
			if _, err := dst.WriteAt(buf[:got], s.Offset+n); err != nil {
				return n, fmt.Errorf("write: %w", err)
			}
			n += int64(got)
		}
		switch {
		case readErr == io.EOF && n < s.Length:
			return n, fmt.Errorf("%w: the source ends after %d of the %d bytes that the manifest declares", ErrBlobSize, n, s.Length)
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, fmt.Errorf("read at %d of %d bytes: %w", n, s.Length, readErr)
		}
	}
}
