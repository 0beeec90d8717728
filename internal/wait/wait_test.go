package wait_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/internal/wait"
)

func TestErr(t *testing.T) {
	assert.NoError(t, wait.Err(t.Context()))

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, context.Canceled, wait.Err(canceled))

	reason := errors.New("the disk is full")
	caused, end := context.WithCancelCause(t.Context())
	end(reason)
	err := wait.Err(caused)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, reason)
	assert.EqualError(t, err, "the disk is full")

	late, stop := context.WithDeadlineCause(t.Context(), time.Now(), reason)
	defer stop()
	<-late.Done()
	assert.ErrorIs(t, wait.Err(late), context.DeadlineExceeded)
	assert.ErrorIs(t, wait.Err(late), reason)
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		assert.NoError(t, wait.Sleep(t.Context(), time.Hour))
		assert.Equal(t, time.Hour, time.Since(begin))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.ErrorIs(t, wait.Sleep(ctx, time.Hour), context.DeadlineExceeded)
		assert.Equal(t, time.Hour+time.Minute, time.Since(begin))
	})
}
