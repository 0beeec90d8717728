//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

const (
	gatewayProgram, gatewayKey = "versitygw", "benchmark-key"

	// The bucket, and where images are in it.
	bucketName, bucketPrefix = "bench", "images"
	bucketDir                = "s3://" + bucketName + "/" + bucketPrefix
)

func (b *bench) startGateway(ctx context.Context) *gateway {
	g := &gateway{data: filepath.Join(b.scratch, "s3")}
	check(os.MkdirAll(filepath.Join(g.data, bucketName), 0o700))
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

// env is what clients of the gateway need, at its address or at that of a proxy.
func (g *gateway) env(address string) []string {
	return []string{"AWS_ENDPOINT_URL_S3=http://" + address, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=" + gatewayKey, "AWS_SECRET_ACCESS_KEY=" + gatewayKey}
}

// empty removes all objects.
func (g *gateway) empty() {
	check(os.RemoveAll(filepath.Join(g.data, bucketName)))
	check(os.MkdirAll(filepath.Join(g.data, bucketName), 0o700))
}

// What this program is called with to upload a file, and to write an object to standard
// output, as a peer.
const uploadCommand, getCommand = "upload", "get"

// peer is the SDK's client as its environment says.
func peer() *s3.Client {
	return s3.New(s3.Options{
		Region: os.Getenv("AWS_REGION"), BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL_S3")), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
}

// getObject writes an object to standard output, by one request.
func getObject(key string) {
	out := must(peer().GetObject(context.Background(), &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: &key}))
	defer out.Body.Close()
	must(io.Copy(os.Stdout, out.Body))
}

// uploadFile uploads a file as the SDK's manager does: five parts at a time.
func uploadFile(path string) {
	ctx := context.Background()
	client := peer()
	const partSize, parallel = 8 << 20, 5
	f := must(os.Open(path))
	defer f.Close()
	size := must(f.Stat()).Size()
	bucket, key := aws.String(bucketName), aws.String(filepath.Base(path))
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
// writes a file and uploads it; and loads from there.
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
	env := b.env
	b.env = slices.Concat(env, g.env(g.address))
	defer func() { b.env = env }()
	b.measureIntoBucket(ctx, g)
	b.measureBucketRefresh(ctx, g)
	b.measureBucketKill(ctx, g)
	b.measureBucketLoads(ctx, g)
}

// Images beside the giant one, to see what memory depends on: one to be stocked at the same
// time, and a larger one.
var (
	twin   = work{"twin", 1, 1 << 30}
	larger = work{"larger", 1, 4 << 30}
)

// measureIntoBucket has images stocked in turns. Of a larger image and of two at once the
// memory is what matters.
func (b *bench) measureIntoBucket(ctx context.Context, g *gateway) {
	giant, twin, larger := b.work("giant"), b.scaled(twin), b.scaled(larger)
	t := &table{title: "(k) Into a bucket of versitygw on loopback, in memory; the registry as in (b)", text: 2,
		head: []string{"work", "program", "runs", "wall, s", "CPU, s", "peak memory, MiB", "written, sockets included, MiB"}}
	b.tables = append(b.tables, t)
	stock := func(dir string, works ...work) func(string) *usage {
		return func(out string) *usage {
			var references []string
			for _, w := range works {
				references = append(references, b.server.reference(limited, w.name))
			}
			return measured(ctx, b.env, b.cacheCommand(ctx, cmp.Or(dir, out), "main", references...).Args...)
		}
	}
	runs := []struct {
		row   *row
		works []work
		run   func(out string) *usage
	}{
		{&row{program: "docker-cache, into a directory"}, []work{giant}, stock("", giant)},
		{&row{program: "docker-cache, into the bucket"}, []work{giant}, stock(bucketDir, giant)},
		{&row{program: "crane, and upload"}, []work{giant}, func(out string) *usage {
			out = filepath.Join(out, "out.tar")
			pulled := measured(ctx, b.env, "crane", "pull", "--platform", "linux/amd64", b.server.reference(limited, giant.name), out)
			sent := measured(ctx, b.env, os.Args[0], uploadCommand, out)
			return &usage{Wall: pulled.Wall + sent.Wall, CPU: pulled.CPU + sent.CPU, Peak: max(pulled.Peak, sent.Peak), Written: pulled.Written + sent.Written}
		}},
		{&row{program: "docker-cache, into the bucket, both at once"}, []work{giant, twin}, stock(bucketDir, giant, twin)},
		{&row{program: "docker-cache, into the bucket"}, []work{larger}, stock(bucketDir, larger)},
	}
	if !b.wants("crane") {
		runs = slices.Delete(runs, 2, 3)
	}
	// The image, the object, and as much again for what else is measured.
	if need := 3 * larger.size; b.free() < need {
		fmt.Fprintf(os.Stderr, "%s is left out: it needs %.4g GiB of %s\n", larger, mib(need)/1024, b.dir)
		runs = runs[:len(runs)-1]
	}
	var rows []*row
	for _, r := range runs {
		var names []string
		for _, w := range r.works {
			b.makeImage(w)
			names = append(names, w.String())
		}
		r.row.work = strings.Join(names, ", ")
		rows = append(rows, r.row)
	}
	for range b.repeat {
		for _, r := range runs {
			func() {
				dir, remove := b.directory()
				defer remove()
				defer g.empty()
				var size int64
				for _, w := range r.works {
					size += int64(w.layers) * w.size
				}
				warm(min(warmTimes*size, warmTimes*giant.size))
				r.row.add(r.run(dir))
			}()
		}
	}
	t.addRows(rows, wall, cpu, peak, written)
	for _, w := range []work{twin, larger} { // of several GiB, and nothing else is made of them
		b.removeImage(w)
	}
}

// measureBucketRefresh stocks the next version of an image into the bucket, and the same again.
func (b *bench) measureBucketRefresh(ctx context.Context, g *gateway) {
	tags := []string{"bucket-1", "bucket-2"}
	base, last := b.makeVersions("bucket", b.makeLayer, tags...)
	for i, tag := range tags {
		b.makeTag(tag, append(slices.Clone(base), last[i])...)
	}
	total := last[1].Size
	for _, l := range base {
		total += l.Size
	}
	defer g.empty()
	b.stock(ctx, bucketDir, "main", limited, tags[0])
	cmd := b.cacheCommand(ctx, bucketDir, "main", b.server.reference(limited, tags[1]))
	before := b.server.stats(ctx, limited, -1)
	u := measured(ctx, b.env, cmd.Args...)
	sent := b.server.stats(ctx, limited, -1).since(before).Written
	b.count("(k) 5 % new: sent by the registry, and written by the process, sockets included, of all", "%.2f %%, %.2f %%; %.2f s",
		100*float64(sent)/float64(total), 100*float64(u.Written)/float64(total), u.Wall.Seconds())
	u = measured(ctx, b.env, b.cacheCommand(ctx, bucketDir, "main", b.server.reference(limited, tags[1])).Args...)
	b.count("(k) nothing changed", "%.3f s; written, sockets included: %.3f MiB", u.Wall.Seconds(), mib(u.Written))
}
