package bucket

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// openWith opens a bucket with other credentials.
func openWith(t testing.TB, server *buckettest.Server, credentials aws.CredentialsProvider) *Bucket {
	t.Helper()
	server.MinPartSize = small.least
	cfg := server.Config()
	cfg.Credentials = credentials
	b, err := Open(t.Context(), "s3://bucket/images", &Options{Config: &cfg})
	require.NoError(t, err)
	b.limits, b.lookEvery = &small, time.Millisecond
	return b
}

// others are credentials that are others each time.
func others(times *atomic.Int64) aws.CredentialsProviderFunc {
	return func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: fmt.Sprintf("AKID%d", times.Add(1)), SecretAccessKey: "secret", SessionToken: "session-token"}, nil
	}
}

// When the server says that credentials have expired, others are asked for, also though
// the SDK keeps them and knows no time at which they do.
func TestExpiredCredentials(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layers := src.layers(300_000, 400_000, 200_000)
	img := src.image(t, layers...)
	server.SetQuirks(buckettest.Quirks{ExpireAfter: 5})
	var times atomic.Int64
	b := openWith(t, server, aws.NewCredentialsCache(others(&times)))
	_, err := b.Put(t.Context(), name, img, src, nil)
	require.NoError(t, err)
	file := get(t, b, name)
	var group sync.WaitGroup
	for _, l := range layers {
		group.Go(func() {
			_, err := readLayer(t, file, l)
			assert.NoError(t, err)
		})
	}
	group.Wait()
	require.NoError(t, file.Verify(t.Context(), nil))
	for range 10 { // HEAD is answered without a reason
		require.NoError(t, b.Touch(t.Context(), name))
	}
	requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	assert.Greater(t, times.Load(), int64(4))
	assert.Positive(t, server.Happened("ExpireAfter.HeadObject"))
	assert.LessOrEqual(t, times.Load(), int64(server.Happened("ExpireAfter"))+1, "each is asked for once")
}

// Where there are no others, that is said at once.
func TestExpiredForGood(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	stock(t, server, name, src, src.layer(1, 100_000))
	for _, provider := range []aws.CredentialsProvider{
		aws.NewCredentialsCache(server.Config().Credentials), server.Config().Credentials,
	} {
		server.SetQuirks(buckettest.Quirks{ExpireAfter: 1})
		b := openWith(t, server, provider)
		_, err := b.Get(t.Context(), name)
		require.NoError(t, err)
		before := len(server.Requests())
		_, err = b.Get(t.Context(), name)
		require.ErrorContains(t, err, "the credentials have expired, and the environment gave no others")
		requireNoSecrets(t, err)
		assert.Equal(t, 2, len(server.Requests())-before, "asked once more")
		err = b.Touch(t.Context(), name)
		require.ErrorContains(t, err, "the credentials may have expired")
		requireNoSecrets(t, err)
		assert.Equal(t, 3, len(server.Requests())-before, "not once more")
	}
}

// The server says in which region the bucket is, and further requests are signed for it.
func TestWrongRegion(t *testing.T) {
	for _, malformed := range []bool{false, true} {
		for _, verb := range []string{"put", "get", "list", "touch"} {
			server := buckettest.New(t, "bucket")
			src := newSource()
			stock(t, server, name, src, src.layer(1, 100_000))
			server.SetQuirks(buckettest.Quirks{WrongRegion: "eu-central-1", WrongRegionMalformed: malformed})
			b := open(t, server, nil)
			for range 2 {
				require.NoError(t, verbs(t, src)[verb](b), verb)
			}
			assert.Equal(t, 1, server.Happened("WrongRegion"), "it is remembered")
		}
	}
}

// A region that cannot be one, or does not help, is an error that says what to do.
func TestNoRegion(t *testing.T) {
	server := buckettest.New(t, "bucket")
	for _, odd := range []string{"evil.example.com/", "a@b", "-", "EU", "a b"} {
		server.SetQuirks(buckettest.Quirks{WrongRegion: odd})
		_, err := open(t, server, nil).List(t.Context())
		require.ErrorContains(t, err, "set AWS_REGION", odd)
		requireNoSecrets(t, err)
	}
	assert.Equal(t, 5, len(server.Requests()))
	answer := answerTo("us-east-1", http.StatusMovedPermanently, http.Header{"X-Amz-Bucket-Region": {"us-east-1"}}, "PermanentRedirect")
	assert.False(t, (&region{}).follow(responseOf(answer)), "it was there")
	assert.False(t, (&region{}).follow(nil))
	err := (&Bucket{name: "bucket"}).wrap(t.Context(), "GetObject", name, answer)
	require.ErrorContains(t, err, "the bucket is in the region us-east-1")
	denied := answerTo("us-east-1", http.StatusForbidden, http.Header{"X-Amz-Bucket-Region": {"eu-west-1"}}, "AccessDenied")
	assert.False(t, (&region{}).follow(responseOf(denied)), "it was refused for another reason")
}

// answerTo is the error of a request that was signed for a region.
func answerTo(region string, status int, header http.Header, code string) error {
	request, _ := http.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKID/20260101/"+region+"/s3/aws4_request, SignedHeaders=host, Signature=abc")
	return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status, Header: header, Request: request}},
		Err:      &smithy.GenericAPIError{Code: code},
	}}
}

// Retry-After is kept, up to a limit, and the number of attempts is.
func TestRetryDelay(t *testing.T) {
	r := &obedient{Standard: newStandard()}
	for after, want := range map[string]time.Duration{"30": 30 * time.Second, "100000": longestDelay, "99999999999999": longestDelay, "99999999999999999999": longestDelay, "-5": 0, "soon": 0, "": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): longestDelay} {
		err := answerTo("us-east-1", http.StatusServiceUnavailable, http.Header{"Retry-After": {after}}, "SlowDown")
		assert.True(t, r.IsErrorRetryable(err))
		for attempt := 1; attempt < attempts; attempt++ {
			delay, delayErr := r.RetryDelay(attempt, err)
			require.NoError(t, delayErr)
			if want > 0 {
				assert.Equal(t, want, delay, after)
			} else {
				assert.LessOrEqual(t, delay, maxBackoff, after)
			}
		}
	}
	assert.Equal(t, attempts, r.MaxAttempts())
	assert.False(t, r.IsErrorRetryable(answerTo("us-east-1", http.StatusForbidden, nil, "AccessDenied")))
	assert.True(t, r.IsErrorRetryable(answerTo("us-east-1", http.StatusInternalServerError, nil, "InternalError")))
}

// Failures of many requests do not end the retries of others.
func TestManyFailures(t *testing.T) {
	r := newStandard()
	for range 1000 {
		release, err := r.GetRetryToken(t.Context(), answerTo("us-east-1", http.StatusServiceUnavailable, nil, "SlowDown"))
		require.NoError(t, err)
		require.NoError(t, release(nil))
	}
}

// A renewer asks for others once, whichever of several requests fails, and gives up when there
// are none.
func TestRenewer(t *testing.T) {
	var times atomic.Int64
	r := &renewer{provider: aws.NewCredentialsCache(others(&times))}
	retrieve := func() string {
		c, err := r.Retrieve(t.Context())
		require.NoError(t, err)
		return c.AccessKeyID + " " + c.SessionToken
	}
	first := retrieve()
	assert.True(t, r.renew(first))
	assert.True(t, r.renew(first), "before others were given")
	second := retrieve()
	assert.NotEqual(t, first, second)
	assert.True(t, r.renew(first), "a request that was slow")
	assert.Equal(t, second, retrieve())
	assert.Equal(t, int64(2), times.Load())
	assert.False(t, r.renew(""), "it was not signed")
	assert.False(t, aws.IsCredentialsProvider(r, aws.AnonymousCredentials{}))

	same := &renewer{provider: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKID"}, nil
	})}
	_, err := same.Retrieve(t.Context())
	require.NoError(t, err)
	assert.True(t, same.renew("AKID "))
	_, err = same.Retrieve(t.Context())
	require.NoError(t, err)
	assert.False(t, same.renew("AKID "))
}
