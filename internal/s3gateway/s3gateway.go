// Package s3gateway starts a real server of S3 for tests.
package s3gateway

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// Start starts versitygw with a bucket, which is a directory below data with a file for each object.
// It ends with the test. Where the program is missing the test is skipped, or fails when CI=true.
func Start(t testing.TB, bucket string) (cfg aws.Config, data string) {
	t.Helper()
	program := testtool.Need(t, "versitygw")
	data = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(data, bucket), 0o755))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	cmd := exec.Command(program, "--port", address, "posix", data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=access", "ROOT_SECRET_KEY=secret-of-the-gateway")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 30*time.Second, 20*time.Millisecond, "versitygw does not listen: %s", &log)
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + address),
		Credentials: credentials.NewStaticCredentialsProvider("access", "secret-of-the-gateway", ""),
	}, data
}
