package loader

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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
		return "", fmt.Errorf("%w: Docker's config file %s: %w: mend it, or set DOCKER_HOST", ErrHost, path, err)
	}
	return file.CurrentContext, nil
}

// readContext reads a context as "docker context create" writes it: the address in
// contexts/meta/<sha256 of the name>/meta.json, certificates below contexts/tls
// (https://github.com/docker/cli/tree/master/cli/context/store).
func readContext(config, name string) (Host, error) {
	if config == "" {
		return Host{}, fmt.Errorf("%w: Docker context %q: where contexts are is not known: set HOME or DOCKER_CONFIG", ErrHost, name)
	}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	raw, err := os.ReadFile(filepath.Join(config, "contexts", "meta", id, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Host{}, fmt.Errorf("%w: no Docker context is called %q (see docker context ls)", ErrHost, name)
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
		return Host{}, fmt.Errorf("%w: Docker context %q: %w", ErrHost, name, err)
	}
	endpoint, ok := meta.Endpoints["docker"]
	if !ok || endpoint.Host == "" {
		return Host{}, fmt.Errorf("%w: Docker context %q names no engine", ErrHost, name)
	}
	// As Docker's client has it, a certificate that is not to be checked is TLS too.
	h := Host{Address: endpoint.Host, TLS: endpoint.SkipTLSVerify, SkipVerify: endpoint.SkipTLSVerify}
	certs := filepath.Join(config, "contexts", "tls", id, "docker")
	if _, err := os.Stat(certs); err == nil {
		h.CertDir, h.TLS = certs, true
	}
	return h, nil
}
