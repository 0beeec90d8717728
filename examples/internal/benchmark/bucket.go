//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// gateway is a server of S3 with a bucket, whose objects are files in memory.
type gateway struct {
	address, data string
	cmd           *exec.Cmd
}

const gatewayProgram, gatewayKey = "versitygw", "benchmark-key"

func (b *bench) startGateway(ctx context.Context) *gateway {
	g := &gateway{data: filepath.Join(b.scratch, "s3")}
	check(os.MkdirAll(filepath.Join(g.data, "bench"), 0o700))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	g.address = l.Addr().String()
	check(l.Close())
	g.cmd = exec.CommandContext(ctx, gatewayProgram, "--port", g.address, "posix", g.data)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+gatewayKey, "ROOT_SECRET_KEY="+gatewayKey)
	check(g.cmd.Start())
	for range 200 {
		if c, err := net.Dial("tcp", g.address); err == nil {
			_ = c.Close()
			return g
		}
		time.Sleep(50 * time.Millisecond)
	}
	check(errors.New(gatewayProgram + " does not listen"))
	return nil
}

func (g *gateway) stop() {
	_, _ = g.cmd.Process.Kill(), g.cmd.Wait()
}

func (g *gateway) env() []string {
	return []string{"AWS_ENDPOINT_URL_S3=http://" + g.address, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=" + gatewayKey, "AWS_SECRET_ACCESS_KEY=" + gatewayKey}
}

// empty removes all objects.
func (g *gateway) empty() {
	check(os.RemoveAll(filepath.Join(g.data, "bench")))
	check(os.MkdirAll(filepath.Join(g.data, "bench"), 0o700))
}

// uploadCommand is what this program is called with to upload a file, as a peer.
const uploadCommand = "upload"

// uploadFile uploads a file as the SDK's manager does: five parts at a time.
func uploadFile(path string) {
	ctx := context.Background()
	client := s3.New(s3.Options{
		Region: os.Getenv("AWS_REGION"), BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL_S3")), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
	const partSize, parallel = 8 << 20, 5
	f := must(os.Open(path))
	defer f.Close()
	size := must(f.Stat()).Size()
	bucket, key := aws.String("bench"), aws.String(filepath.Base(path))
	created := must(client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key}))
	parts := make([]types.CompletedPart, (size+partSize-1)/partSize)
	next := make(chan int)
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			buffer := make([]byte, partSize)
			for i := range next {
				p := buffer[:min(partSize, size-int64(i)*partSize)]
				must(f.ReadAt(p, int64(i)*partSize))
				number := int32(i + 1)
				out := must(client.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: created.UploadId, PartNumber: &number, Body: bytes.NewReader(p)}))
				parts[i] = types.CompletedPart{ETag: out.ETag, PartNumber: &number}
			}
		})
	}
	for i := range parts {
		next <- i
	}
	close(next)
	all.Wait()
	must(client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: created.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}))
}

// measureBucket stocks into a bucket, beside the same into a directory, and beside a peer that
// writes a file and uploads it.
func (b *bench) measureBucket(ctx context.Context) {
	if !b.bucket || !slices.Contains(b.works, "giant") {
		return
	}
	if _, err := exec.LookPath(gatewayProgram); err != nil {
		fmt.Fprintf(os.Stderr, "the bucket is left out: %s is not installed\n", gatewayProgram)
		return
	}
	g := b.startGateway(ctx)
	defer g.stop()
	w := b.work("giant")
	t := &table{title: "(k) Into a bucket of versitygw on loopback, in memory; the registry as in (b)", text: 2,
		head: []string{"work", "program", "runs", "wall, s", "CPU, s", "peak memory, MiB", "written, sockets included, MiB"}}
	b.tables = append(b.tables, t)
	const into = "s3://bench/images"
	rows := []*row{{work: w.String(), program: "docker-cache, into a directory"}, {work: w.String(), program: "docker-cache, into the bucket"}, {work: w.String(), program: "crane, and upload"}}
	reference := b.server.reference(limited, w.name)
	run := func(i int) *usage {
		dir, remove := b.directory()
		defer remove()
		defer g.empty()
		warm(warmTimes * int64(w.layers) * w.size)
		env := slices.Concat(b.env, g.env())
		switch i {
		case 0:
			return measured(ctx, env, b.cacheCommand(ctx, dir, "main", reference).Args...)
		case 1:
			return measured(ctx, env, b.cacheCommand(ctx, into, "main", reference).Args...)
		}
		out := filepath.Join(dir, "out.tar")
		pulled := measured(ctx, env, "crane", "pull", "--platform", "linux/amd64", reference, out)
		sent := measured(ctx, env, os.Args[0], uploadCommand, out)
		return &usage{Wall: pulled.Wall + sent.Wall, CPU: pulled.CPU + sent.CPU, Peak: max(pulled.Peak, sent.Peak), Written: pulled.Written + sent.Written}
	}
	for range b.repeat {
		for i, r := range rows {
			if i == 2 && !b.wants("crane") {
				continue
			}
			r.add(run(i))
		}
	}
	t.addRows(rows, wall, cpu, peak, written)
	b.measureBucketRefresh(ctx, g, into)
}

// measureBucketRefresh stocks the next version of an image into the bucket, and the same again.
func (b *bench) measureBucketRefresh(ctx context.Context, g *gateway, into string) {
	tags := []string{"bucket-1", "bucket-2"}
	base, last := b.makeVersions("bucket", b.makeLayer, tags...)
	for i, tag := range tags {
		b.makeTag(tag, append(slices.Clone(base), last[i])...)
	}
	total := last[1].Size
	for _, l := range base {
		total += l.Size
	}
	env := b.env
	b.env = slices.Concat(env, g.env())
	defer func() { b.env = env }()
	defer g.empty()
	b.stock(ctx, into, "main", limited, tags[0])
	cmd := b.cacheCommand(ctx, into, "main", b.server.reference(limited, tags[1]))
	before := b.server.stats(ctx, limited, -1)
	u := measured(ctx, b.env, cmd.Args...)
	sent := b.server.stats(ctx, limited, -1).since(before).Written
	b.count("(k) 5 % new: sent by the registry, and written by the process, sockets included, of all", "%.2f %%, %.2f %%; %.2f s",
		100*float64(sent)/float64(total), 100*float64(u.Written)/float64(total), u.Wall.Seconds())
	u = measured(ctx, b.env, b.cacheCommand(ctx, into, "main", b.server.reference(limited, tags[1])).Args...)
	b.count("(k) nothing changed", "%.3f s; written, sockets included: %.3f MiB", u.Wall.Seconds(), mib(u.Written))
}
