package redact

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A handler of a log leaves no secret in anything that is logged.
func TestHandler(t *testing.T) {
	var out bytes.Buffer
	s := &Secrets{}
	s.Add("hunter22")
	log := slog.New(s.Handler(slog.NewTextHandler(&out, nil))).With("first", "hunter22").WithGroup("g")
	log.Info("it is hunter22", "text", "hunter22", "error", fmt.Errorf("x: %w", errors.New("hunter22")), slog.Group("group", "in", "hunter22"),
		"list", []string{"hunter22"}, "number", 5, "other", struct{ V int }{7}, "valuer", valuer{})
	assert.NotContains(t, out.String(), "hunter22")
	assert.Equal(t, 7, strings.Count(out.String(), "(not shown)"))
	assert.Contains(t, out.String(), "g.number=5 g.other={V:7}")
}

type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.StringValue("hunter22") }
