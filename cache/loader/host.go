package loader

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// DefaultHost is where Docker's engine listens unless told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// A Host is where an engine listens, and how it is spoken to.
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

// ErrHost is wrapped when where the engine is cannot be understood or found out.
var ErrHost = errors.New("unusable engine address")

// Environment returns where the engine is, as Docker's client finds it: DOCKER_HOST,
// with DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH; else the context that
// DOCKER_CONTEXT names, or currentContext in Docker's config file (in DOCKER_CONFIG,
// or ~/.docker); else [DefaultHost]. The error wraps [ErrHost].
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

// ParseHost returns the host at an address that a person has given, without TLS.
// The error wraps [ErrHost]: it is none that [Open] understands.
func ParseHost(address string) (Host, error) {
	h := Host{Address: address}
	if strings.HasPrefix(address, containerdScheme+":") {
		_, err := containerdSocket(address)
		return h, err
	}
	return h, h.check()
}

// check finds out whether the address can be spoken to.
func (h Host) check() error {
	u, err := url.Parse(h.Address)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrHost, err)
	case u.Scheme == "ssh":
		return fmt.Errorf("%w %q: ssh is not spoken here: forward the socket (ssh -L) and name that", ErrHost, u.Redacted())
	case u.User != nil:
		return fmt.Errorf("%w: it has a user name or password in it, which no engine takes", ErrHost)
	case u.Scheme == "http" && h.TLS:
		return fmt.Errorf("%w %q: http is without TLS, which DOCKER_TLS_VERIFY or the context asks for: want tcp or https", ErrHost, h.Address)
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	case (u.Scheme == "tcp" || u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "":
		return nil
	}
	return fmt.Errorf("%w %q: want unix:///PATH or tcp://HOST:PORT", ErrHost, h.Address)
}
