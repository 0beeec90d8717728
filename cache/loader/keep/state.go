package keep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/atomicfile"
	"github.com/dockercache/dockercache/cache/loader"
)

// state is what a Keeper has loaded. It is only used by Run and Once.
type state struct {
	path string // "" none
	// Engine is the ID of the engine that it is about.
	Engine string `json:"engine"`
	// Tarballs has the versions of each tarball that the engine may have, the newest first.
	Tarballs map[string][]entry `json:"tarballs"`
}

// entry is an image in the engine.
type entry struct {
	Reference string  `json:"reference"`
	ID        v1.Hash `json:"id"` // what the engine calls it
}

func readState(path string) (*state, error) {
	s := &state{path: path}
	if path != "" {
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, s)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read what was loaded before, %s: %w", path, err)
		}
	}
	if s.Tarballs == nil {
		s.Tarballs = map[string][]entry{}
	}
	return s, nil
}

// use makes it the state of an engine: of another one nothing is known.
func (s *state) use(engine string) {
	if s.Engine != engine {
		s.Engine, s.Tarballs = engine, map[string][]entry{}
	}
}

func (s *state) write() error {
	if s.path == "" {
		return nil
	}
	return atomicfile.WriteFile(s.path, 0o600, func(f *os.File) error { return json.NewEncoder(f).Encode(s) })
}

// record records that an image is the newest version of a tarball.
func (k *Keeper) record(name string, e entry) {
	versions := k.state.Tarballs[name]
	if len(versions) > 0 && versions[0] == e {
		return
	}
	k.state.Tarballs[name] = append([]entry{e}, slices.DeleteFunc(versions, func(o entry) bool { return o == e })...)
	k.writeState()
}

func (k *Keeper) writeState() {
	if err := k.state.write(); err != nil {
		k.log.Warn("what was loaded cannot be recorded: after the next start it will not be removed", "error", err)
	}
}

// removeOld removes what is older than the versions that stay, of all tarballs.
func (k *Keeper) removeOld(ctx context.Context) {
	for name := range k.state.Tarballs {
		k.removeOldOf(ctx, name)
	}
}

// removeOldOf removes what is older than the versions of a tarball that stay. What is in use
// is tried again later. So is the rest if anything goes wrong.
func (k *Keeper) removeOldOf(ctx context.Context, name string) {
	remover, ok := k.engine.(loader.Remover)
	if !ok || k.o.Versions < 1 {
		return
	}
	kept, versions := []entry{}, 0
	for _, e := range k.state.Tarballs[name] {
		// Of a reference that was given to a newer image, the older one has no name left.
		moved := slices.ContainsFunc(kept, func(newer entry) bool { return newer.Reference == e.Reference })
		if !moved {
			versions++
		}
		if !moved && versions <= k.o.Versions {
			kept = append(kept, e)
			continue
		}
		k.begin(Removing, name)
		removed, err := k.remove(ctx, remover, e, moved)
		inUse := errors.Is(err, loader.ErrInUse) || errors.Is(err, errWanted)
		if inUse {
			k.log.Debug("an older version stays", "image", e.Reference, "error", err)
		} else if err != nil && ctx.Err() == nil {
			k.log.Warn("an older version could not be removed", "image", e.Reference, "error", err)
		}
		k.mu.Lock()
		switch {
		case err != nil && !inUse:
			k.status.RemoveFailures++
		case err == nil && removed:
			k.status.Removed++
		}
		k.mu.Unlock()
		if err != nil {
			kept = append(kept, e)
		}
	}
	if len(kept) < len(k.state.Tarballs[name]) {
		k.state.Tarballs[name] = kept
		k.writeState()
	}
}

var errWanted = errors.New("another tarball has, or may have, the reference")

// remove removes an older version; false if it was not there any more, or is another's now.
func (k *Keeper) remove(ctx context.Context, remover loader.Remover, e entry, moved bool) (bool, error) {
	if moved {
		id, _, err := remover.Find(ctx, e.ID.String())
		if err != nil || id == (v1.Hash{}) {
			return false, err
		}
		return true, remover.Remove(ctx, e.ID.String())
	}
	if k.wanted(e.Reference) {
		return false, errWanted
	}
	id, _, err := remover.Find(ctx, e.Reference)
	if err != nil || id != e.ID {
		return false, err
	}
	return true, remover.Remove(ctx, e.Reference)
}

// wanted reports whether a tarball has this reference, or may have: one was not opened yet.
func (k *Keeper) wanted(reference string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, i := range k.images {
		if i.Image.Reference == reference || i.Image.Reference == "" && i.Error == nil {
			return true
		}
	}
	return false
}
