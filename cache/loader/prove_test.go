package loader

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

func TestProve(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, tarball, opts)
		require.NoError(t, err)
		id, err := v1.NewHash(identity(tarball.Image, o))
		require.NoError(t, err)
		require.NoError(t, docker.Prove(t.Context(), id))
		assert.Zero(t, engine.Containers())
		require.ErrorIs(t, docker.Prove(t.Context(), v1.Hash{Algorithm: "sha256", Hex: id.Hex[:62] + "00"}), ErrEngine)
		engine.SetQuirks(enginetest.Quirks{CreateFails: true})
		err = docker.Prove(t.Context(), id)
		if provenByContainer(o) {
			require.ErrorContains(t, err, "status 500: error creating overlay mount")
		} else {
			require.NoError(t, err, "a container would make the engine wait for the disk")
		}
		if o.Kind == enginetest.Containerd && o.Version == "" {
			engine.SetQuirks(enginetest.Quirks{Incomplete: true})
			require.ErrorContains(t, docker.Prove(t.Context(), id), "is incomplete")
		}
	})
}

func TestOutlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("enough")
		parent, end := context.WithCancelCause(t.Context())
		ctx, cancel := outlive(parent, time.Minute)
		defer cancel()
		end(reason)
		time.Sleep(time.Minute - time.Nanosecond) // of the bubble's clock
		synctest.Wait()
		require.NoError(t, ctx.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, reason, context.Cause(ctx))

		ctx, cancel = outlive(t.Context(), time.Minute)
		cancel()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
	})
}
