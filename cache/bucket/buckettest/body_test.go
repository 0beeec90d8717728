package buckettest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// A body of a second each way, on a clock that stands still while anything runs: the
// time that passes is the one that was asked for, and no other.
func TestLimits(t *testing.T) {
	const content = 1 << 20
	for name, quirks := range map[string]Quirks{
		"BytesPerSecond": {GetBytesPerSecond: content, PutBytesPerSecond: content},
		"Rate":           {Rate: func(Request) int64 { return content }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer("bucket")
				defer s.Close()
				s.SetQuirks(quirks)
				start := time.Now()
				for i, method := range []string{http.MethodPut, http.MethodGet} {
					r := httptest.NewRequest(method, "/bucket/key", strings.NewReader(strings.Repeat("a", content*(1-i))))
					r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=ID/20260101/us-east-1/s3/aws4_request")
					r.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
					w := httptest.NewRecorder()
					s.ServeHTTP(w, r)
					assert.Equal(t, http.StatusOK, w.Code)
					assert.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
				}
			})
		})
	}
}

// A wait ends with the request.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		var p pacer
		assert.False(t, p.wait(ctx, nil, 1000, 1))
		assert.Zero(t, time.Since(start))
	})
}
