package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// ReadCAs reads a file of certificates in PEM, for [Options.CAs].
func ReadCAs(file string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no certificate in PEM (-----BEGIN CERTIFICATE-----)", file)
	}
	return found, nil
}

// defaultCertDirs returns where Docker and podman have the certificates of
// registries: https://docs.docker.com/engine/security/certificates/ and
// containers-certs.d(5). Rootless Docker has them in the user's configuration.
func defaultCertDirs() (dirs []string) {
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, ".config", "containers", "certs.d"), filepath.Join(configHome(), "docker", "certs.d"), filepath.Join(home, ".docker", "certs.d"))
	}
	if runtime.GOOS == "windows" {
		return append(dirs, filepath.Join(os.Getenv("ProgramData"), "docker", "certs.d"))
	}
	return append(dirs, "/etc/containers/certs.d", "/etc/docker/certs.d")
}

// certs are the certificates that are set up for registries. They are read when a
// registry is asked the first time. It is safe for concurrent use.
type certs struct {
	dirs []string
	cas  []*x509.Certificate // for all
	log  *slog.Logger

	mu    sync.Mutex
	hosts map[string]*hostCerts
}

// hostCerts are those of one registry.
type hostCerts struct {
	cas     []*x509.Certificate
	clients []tls.Certificate
}

// of returns the certificates of HOST or HOST:PORT; nil if it has none.
func (c *certs) of(host string) *hostCerts {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.hosts[host]
	if known {
		return h
	}
	h = &hostCerts{cas: slices.Clone(c.cas)}
	for _, dir := range c.dirs {
		for _, name := range hostNames(host) {
			if runtime.GOOS == "windows" {
				name = strings.ReplaceAll(name, ":", "") // as Docker does
			}
			c.read(h, filepath.Join(dir, name))
		}
	}
	if len(h.cas)+len(h.clients) == 0 {
		h = nil
	}
	if c.hosts == nil {
		c.hosts = map[string]*hostCerts{}
	}
	c.hosts[host] = h
	return h
}

// read adds *.crt of a directory, which are CAs, and *.cert with *.key, which are
// certificates of the client. What cannot be used is a warning: a key may be for
// root alone.
func (c *certs) read(h *hostCerts, dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		if !isAbsent(err) {
			c.warn(err)
		}
		return
	}
	for _, f := range files {
		file := filepath.Join(dir, f.Name())
		switch filepath.Ext(file) {
		case ".crt":
			cas, err := ReadCAs(file)
			if err != nil {
				c.warn(err)
			}
			h.cas = append(h.cas, cas...)
		case ".cert":
			pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
			if err != nil {
				c.warn(fmt.Errorf("%s: %w", file, err))
				continue
			}
			h.clients = append(h.clients, pair)
		}
	}
}

func (c *certs) warn(err error) {
	c.log.WarnContext(context.Background(), "a registry's certificate is not used", "error", err)
}

// config returns base with the certificates beside its own, or the system's. A
// client's certificate is for the registry itself.
func (h *hostCerts) config(base *tls.Config, own bool) *tls.Config {
	config := &tls.Config{}
	if base != nil {
		config = base.Clone()
	}
	pool := config.RootCAs
	if pool != nil {
		pool = pool.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		pool = system
	} else {
		pool = x509.NewCertPool()
	}
	for _, ca := range h.cas {
		pool.AddCert(ca)
	}
	config.RootCAs = pool
	if own {
		config.Certificates = slices.Concat(config.Certificates, h.clients)
	}
	return config
}
