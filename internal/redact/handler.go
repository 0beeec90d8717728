package redact

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
)

// Handler returns a handler of a log that takes the secrets out of messages,
// texts and errors before they reach inner.
func (s *Secrets) Handler(inner slog.Handler) slog.Handler { return &handler{inner, s} }

type handler struct {
	slog.Handler
	secrets *Secrets
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, h.secrets.Text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool { clean.AddAttrs(h.clean(a)); return true })
	return h.Handler.Handle(ctx, clean)
}

func (h *handler) clean(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(h.secrets.Text(a.Value.String()))
	case slog.KindGroup:
		group := slices.Clone(a.Value.Group())
		for i := range group {
			group[i] = h.clean(group[i])
		}
		a.Value = slog.GroupValue(group...)
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.AnyValue(h.secrets.Error(err))
		} else if text := fmt.Sprint(a.Value.Any()); h.secrets.Text(text) != text {
			a.Value = slog.StringValue(h.secrets.Text(text))
		}
	}
	return a
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		attrs[i] = h.clean(attrs[i])
	}
	return &handler{h.Handler.WithAttrs(attrs), h.secrets}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.secrets}
}
