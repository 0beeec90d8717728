package loader

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Load implements [Engine].
func (d *Docker) Load(ctx context.Context, archive io.Reader, size int64) error {
	// Quiet leaves out the progress, not what failed.
	resp, err := d.do(ctx, http.MethodPost, "/images/load", url.Values{"quiet": {"1"}}, archive, size, "application/x-tar")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readStream(ctx, resp.Body)
}

// readStream reads the answer to a load or a pull to its end.
func readStream(ctx context.Context, answer io.Reader) error {
	err := readLoadStream(answer)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// loadMessage is a line of the answer to POST /images/load, and to a pull.
type loadMessage struct {
	Stream string `json:"stream"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

// maxLine is how long a line of that answer may be.
const maxLine = 1 << 20

// readLoadStream reads the answer to a load to its end. The status is 200 also when
// it fails; the reason is in the last line then. Docker 27 to 29 with containerd's
// store report an image that cannot be unpacked as loaded, in a line of text
// (https://github.com/moby/moby/issues/48293).
func readLoadStream(answer io.Reader) error {
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var m loadMessage
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue // not the last word: the image is looked at
		}
		if m.Error != "" {
			return fmt.Errorf("%w: %s", ErrEngine, strings.TrimSpace(m.Error))
		}
		for _, text := range []string{m.Stream, m.Status} {
			if strings.HasPrefix(strings.TrimSpace(text), "Error ") {
				return fmt.Errorf("%w: %s", ErrEngine, strings.TrimSpace(text))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: the answer ends early: %w", ErrEngine, err)
	}
	return nil
}
