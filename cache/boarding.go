package cache

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An awaited layer is on another image's flight.
type awaited struct {
	layer  Segment
	flight *flight
}

// board tells which layers are to be brought now, and which by others.
func (s *supply) board(layers []Segment) (now []Segment, later []awaited) {
	for _, l := range layers {
		if s.piloted[l.Blob] != nil || s.landed[l.Blob] != nil || len(s.gaps(l)) == 0 {
			now = append(now, l)
		} else if f, pilot := s.dir.flights.board(l.Blob); pilot {
			s.piloted[l.Blob] = f
			now = append(now, l)
		} else {
			later = append(later, awaited{l, f})
		}
	}
	return now, later
}

// await waits for the first of the other images' flights, unless something has
// failed, and returns the layers that are still to be brought: those that have landed
// by then, which are taken from there, and the rest.
func (s *supply) await(ctx context.Context, later []awaited, failed error) (todo []Segment, err error) {
	err = failed
	for i, a := range later {
		if i == 0 && err == nil {
			err = a.flight.wait(ctx)
		}
		if a.flight.landed() {
			s.landed[a.layer.Blob] = a.flight
		} else {
			s.dir.flights.leave(a.flight)
		}
		todo = append(todo, a.layer)
	}
	return todo, err
}

// disembark says that the files in which layers have landed are no longer needed.
func (s *supply) disembark() {
	for layer, f := range s.landed {
		s.dir.flights.leave(f)
		delete(s.landed, layer)
	}
}

// land ends the flight of a layer that is proven.
func (s *supply) land(layer v1.Hash) {
	l, _ := s.layout.layer(layer)
	if f := s.piloted[layer]; f != nil {
		s.dir.flights.land(f, s.p.file, l.Offset)
	}
}

// retire ends all flights. It is called when the tarball is published, or will
// not be.
func (s *supply) retire() {
	for layer, f := range s.piloted {
		s.dir.flights.retire(layer, f)
	}
}
