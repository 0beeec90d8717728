package loader

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/internal/wait"
)

// client returns what speaks to the host, and what its URLs begin with.
func (h Host) client() (client *http.Client, base string, err error) {
	if err := h.check(); err != nil {
		return nil, "", err
	}
	u, err := url.Parse(h.Address)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrInvalidHost, err)
	}
	// An engine is no server on the internet: no proxy, and no time limit on an
	// answer, for a load takes minutes to give one.
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: inspectAtOnce, IdleConnTimeout: 30 * time.Second}
	client = &http.Client{Transport: transport}
	if u.Scheme == "unix" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", u.Path)
			if err != nil {
				return nil, err
			}
			return &socket{conn.(*net.UnixConn)}, nil
		}
		return client, "http://engine", nil
	}
	secure := u.Scheme == "https" || u.Scheme == "tcp" && h.TLS
	if u.Scheme == "tcp" && u.Port() == "" { // as Docker's client does
		u.Host = net.JoinHostPort(u.Hostname(), map[bool]string{false: "2375", true: "2376"}[secure])
	}
	if !secure {
		return client, "http://" + u.Host, nil
	}
	if transport.TLSClientConfig, err = h.tlsConfig(); err != nil {
		return nil, "", fmt.Errorf("%w %s: %w", ErrInvalidHost, h.Address, err)
	}
	return client, "https://" + u.Host, nil
}

// socketBuffer is how much goes into a socket at a time. net/http would write 32 KiB,
// and wake the engine for each.
const socketBuffer = 1 << 20

// socket is a connection that archives go into in larger pieces.
type socket struct{ *net.UnixConn }

// ReadFrom makes it an [io.ReaderFrom], which net/http looks for.
func (s *socket) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{s.UnixConn}, r, make([]byte, socketBuffer))
}

// tlsConfig reads the certificates as Docker's client names them.
func (h Host) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: h.SkipVerify}
	if h.CertDir == "" {
		return config, nil
	}
	ca, err := os.ReadFile(filepath.Join(h.CertDir, "ca.pem"))
	switch {
	case err == nil:
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s has no certificate", filepath.Join(h.CertDir, "ca.pem"))
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	cert, key := filepath.Join(h.CertDir, "cert.pem"), filepath.Join(h.CertDir, "key.pem")
	if !exists(cert) && !exists(key) {
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// maxAnswer is how large an answer may be that is held in memory. That of
// /images/json is some 500 bytes for each image.
const maxAnswer = 64 << 20

// statusError is an answer that is no success.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%v: status %d: %s", ErrEngine, e.status, e.message)
}
func (e *statusError) Unwrap() error { return ErrEngine }

// isStatus reports whether an error is an answer with this status.
func isStatus(err error, status int) bool {
	answer := (*statusError)(nil)
	return errors.As(err, &answer) && answer.status == status
}

// libpodPath begins the paths of podman's own API.
const libpodPath = "/libpod"

// do sends a request and returns a successful answer, whose body must be closed.
func (d *docker) do(ctx context.Context, method, path string, query url.Values, body io.Reader, size int64, contentType string) (*http.Response, error) {
	base := d.base
	if strings.HasPrefix(path, libpodPath) {
		base = d.libpod
	}
	target := base + (&url.URL{Path: path}).EscapedPath()
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidHost, err)
	}
	if body != nil {
		req.ContentLength = size
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	var answer struct{ Message string }
	if json.Unmarshal(raw, &answer) != nil || answer.Message == "" {
		answer.Message = string(bytes.ToValidUTF8(raw, nil))
	}
	return nil, &statusError{resp.StatusCode, answer.Message}
}

// unreachable says what a failed connection may mean.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	inner := (*url.Error)(nil)
	if errors.As(err, &inner) {
		err = inner.Err // without the made-up URL
	}
	tip := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tip = ": is an engine running, and its address right (DOCKER_HOST, -host)?"
	case errors.Is(err, fs.ErrPermission):
		tip = ": this user may not use the socket (see the group docker)"
	case errors.Is(err, syscall.ECONNREFUSED):
		tip = ": nothing listens there: is the engine running?"
	}
	return fmt.Errorf("%w: %w%s", ErrUnreachable, err, tip)
}

// get decodes an answer in JSON.
func (d *docker) get(ctx context.Context, path string, answer any) error {
	return d.call(ctx, http.MethodGet, path, nil, nil, answer)
}

// call sends a request in JSON, if it is not nil, and decodes the answer, if that
// is wanted.
func (d *docker) call(ctx context.Context, method, path string, query url.Values, request, answer any) error {
	var body io.Reader
	var raw []byte
	if request != nil {
		var err error
		if raw, err = json.Marshal(request); err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	resp, err := d.do(ctx, method, path, query, body, int64(len(raw)), "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return unreachable(ctx, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("%w: the answer to %s is not what an engine gives: %w", ErrEngine, path, err)
	}
	return nil
}

// readStream reads the answer to a load or a pull to its end.
func readStream(ctx context.Context, answer io.Reader, unpacked func(int64)) error {
	err := readLoadStream(answer, unpacked)
	if err != nil && ctx.Err() != nil {
		return wait.Err(ctx)
	}
	return err
}

// loadMessage is a line of the answer to POST /images/load, and to a pull.
type loadMessage struct {
	Stream string `json:"stream"`
	Status string `json:"status"`
	Error  string `json:"error"`
	// Of a layer that is being unpacked:
	ID     string `json:"id"`
	Detail struct {
		Current int64 `json:"current"`
	} `json:"progressDetail"`
}

// unpackingStatus is the status of the lines that report how many bytes of a layer's file are
// unpacked (https://github.com/moby/moby/blob/v20.10.24/image/tarexport/load.go).
const unpackingStatus = "Loading layer"

// maxLine is how long a line of that answer may be.
const maxLine = 1 << 20

// readLoadStream reads the answer to a load to its end. The status is 200 also when
// it fails; the reason is in the last line then. Docker 27 to 29 with containerd's
// store report an image that cannot be unpacked as loaded, in a line of text
// (https://github.com/moby/moby/issues/48293). unpacked, when not nil, is called with how
// many bytes of all layers are unpacked.
func readLoadStream(answer io.Reader, unpacked func(int64)) error {
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, maxLine)
	layers := map[string]int64{}
	var done int64
	for lines.Scan() {
		var m loadMessage
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue // not the last word: the image is looked at
		}
		if m.Error != "" {
			return fmt.Errorf("%w: %s", ErrEngine, strings.TrimSpace(m.Error))
		}
		for _, text := range []string{m.Stream, m.Status} {
			if strings.HasPrefix(strings.TrimSpace(text), "Error ") {
				return fmt.Errorf("%w: %s", ErrEngine, strings.TrimSpace(text))
			}
		}
		if more := m.Detail.Current - layers[m.ID]; m.Status == unpackingStatus && more > 0 && unpacked != nil {
			layers[m.ID] = m.Detail.Current
			done += more
			unpacked(done)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: the answer ends early: %w", ErrEngine, err)
	}
	return nil
}
