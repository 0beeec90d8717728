package loader

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// DefaultHost is where Docker's engine listens by default.
const DefaultHost = "unix:///var/run/docker.sock"

// A Host is where an engine listens, and how to connect to it.
type Host struct {
	// Address is unix:///PATH, or tcp://HOST:PORT, by default port 2375, or 2376 with
	// TLS; http:// and https:// are the same as the latter, without and with TLS.
	// containerd:///PATH is for [Open].
	Address string
	// CertDir is where ca.pem is, or cert.pem with key.pem, or all three; "" is
	// nowhere.
	CertDir string
	// TLS makes tcp:// use TLS.
	TLS bool
	// SkipVerify leaves the server's certificate unchecked.
	SkipVerify bool
}

// ErrInvalidHost is wrapped when the address of the engine cannot be understood or found out.
var ErrInvalidHost = errors.New("unusable engine address")

// Environment returns where the engine is, as Docker's client finds it: DOCKER_HOST,
// with DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH; else the context that
// DOCKER_CONTEXT names, or currentContext in Docker's config file (in DOCKER_CONFIG,
// or ~/.docker); else [DefaultHost]. The error wraps [ErrInvalidHost].
func Environment(getenv func(string) string) (Host, error) {
	config := getenv("DOCKER_CONFIG")
	if home := getenv("HOME"); config == "" && home != "" { // without either there is none
		config = filepath.Join(home, ".docker")
	}
	if address := getenv("DOCKER_HOST"); address != "" {
		h := Host{Address: address, TLS: getenv("DOCKER_TLS_VERIFY") != "" || getenv("DOCKER_TLS") != ""}
		h.SkipVerify = h.TLS && getenv("DOCKER_TLS_VERIFY") == ""
		if h.TLS {
			if h.CertDir = getenv("DOCKER_CERT_PATH"); h.CertDir == "" {
				h.CertDir = config
			}
		}
		return h, h.check()
	}
	name := getenv("DOCKER_CONTEXT")
	if name == "" {
		var err error
		if name, err = currentContext(config); err != nil {
			return Host{}, err
		}
	}
	if name == "" || name == "default" {
		return Host{Address: DefaultHost}, nil
	}
	h, err := readContext(config, name)
	if err != nil {
		return Host{}, err
	}
	return h, h.check()
}

// ParseHost returns the host at an address, without TLS.
// The error wraps [ErrInvalidHost]: it is none that [Open] understands.
func ParseHost(address string) (Host, error) {
	h := Host{Address: address}
	if strings.HasPrefix(address, containerdScheme+":") {
		_, err := containerdSocket(address)
		return h, err
	}
	return h, h.check()
}

// check returns why the address cannot be used.
func (h Host) check() error {
	u, err := url.Parse(h.Address)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInvalidHost, err)
	case u.Scheme == "ssh":
		return fmt.Errorf("%w %q: ssh is not supported: forward the socket (ssh -L) and name that", ErrInvalidHost, u.Redacted())
	case u.User != nil:
		return fmt.Errorf("%w: it has a user name or password in it, which no engine takes", ErrInvalidHost)
	case u.Scheme == "http" && h.TLS:
		return fmt.Errorf("%w %q: http is without TLS, which DOCKER_TLS_VERIFY or the context asks for: want tcp or https", ErrInvalidHost, h.Address)
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	case (u.Scheme == "tcp" || u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "":
		return nil
	}
	return fmt.Errorf("%w %q: want unix:///PATH or tcp://HOST:PORT", ErrInvalidHost, h.Address)
}

// currentContext returns the name of the context that Docker's config file says is
// in use; "" if it does not.
func currentContext(config string) (string, error) {
	if config == "" {
		return "", nil
	}
	path := filepath.Join(config, "config.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var file struct {
		CurrentContext string `json:"currentContext"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err != nil {
		return "", fmt.Errorf("%w: Docker's config file %s: %w: repair it, or set DOCKER_HOST", ErrInvalidHost, path, err)
	}
	return file.CurrentContext, nil
}

// readContext reads a context as "docker context create" writes it: the address in
// contexts/meta/<sha256 of the name>/meta.json, certificates below contexts/tls
// (https://github.com/docker/cli/tree/master/cli/context/store).
func readContext(config, name string) (Host, error) {
	if config == "" {
		return Host{}, fmt.Errorf("%w: Docker context %q: where contexts are is not known: set HOME or DOCKER_CONFIG", ErrInvalidHost, name)
	}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	raw, err := os.ReadFile(filepath.Join(config, "contexts", "meta", id, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Host{}, fmt.Errorf("%w: no Docker context is called %q (see docker context ls)", ErrInvalidHost, name)
	}
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err == nil {
		err = json.Unmarshal(raw, &meta)
	}
	if err != nil {
		return Host{}, fmt.Errorf("%w: Docker context %q: %w", ErrInvalidHost, name, err)
	}
	endpoint, ok := meta.Endpoints["docker"]
	if !ok || endpoint.Host == "" {
		return Host{}, fmt.Errorf("%w: Docker context %q names no engine", ErrInvalidHost, name)
	}
	// As for Docker's client, a certificate that is not to be checked is TLS too.
	h := Host{Address: endpoint.Host, TLS: endpoint.SkipTLSVerify, SkipVerify: endpoint.SkipTLSVerify}
	certs := filepath.Join(config, "contexts", "tls", id, "docker")
	if _, err := os.Stat(certs); err == nil {
		h.CertDir, h.TLS = certs, true
	}
	return h, nil
}
