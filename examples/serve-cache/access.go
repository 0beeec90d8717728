package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/dockercache/dockercache/cache/server"
)

// access is who may read, and by which certificate clients know the server.
type access struct {
	certificate, key  string // files
	passwords, tokens string // files

	tls       *tls.Config // nil: plain HTTP
	authorize func(r *http.Request, repository string) error
}

// check reads the files. Without one for passwords or tokens everybody may read.
func (a *access) check() error {
	if (a.certificate == "") != (a.key == "") {
		return errors.New("-tls-cert and -tls-key belong together: give both")
	}
	if a.certificate != "" {
		certificate, err := tls.LoadX509KeyPair(a.certificate, a.key)
		if err != nil {
			return fmt.Errorf("-tls-cert, -tls-key: %w", err)
		}
		a.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	}
	var rules []func(r *http.Request, repository string) error
	if a.passwords != "" {
		known, err := readSecrets("password-file", a.passwords, func(line string) bool {
			user, password, ok := strings.Cut(line, ":")
			return ok && user != "" && password != ""
		}, "USER:PASSWORD")
		if err != nil {
			return err
		}
		rules = append(rules, server.BasicAuth(func(user, password string) bool { return known.contain(user + ":" + password) }))
	}
	if a.tokens != "" {
		known, err := readSecrets("token-file", a.tokens, func(line string) bool { return !strings.ContainsAny(line, " \t") }, "a token, without spaces")
		if err != nil {
			return err
		}
		rules = append(rules, server.TokenAuth(known.contain))
	}
	if len(rules) > 0 {
		a.authorize = func(r *http.Request, repository string) (err error) {
			for _, rule := range rules {
				if err = rule(r, repository); err == nil {
					return nil
				}
			}
			return err
		}
	}
	return nil
}

// secrets are the lines of a file, hashed: so all are as long, and the time that it takes to
// compare them shows nothing.
type secrets [][sha256.Size]byte

// readSecrets reads a file of secrets, one a line; empty lines and those that begin with "#" are
// passed over. No error has a line in it.
func readSecrets(flag, path string, isRight func(line string) bool, want string) (secrets, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", flag, err)
	}
	var all secrets
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if !isRight(line) {
			return nil, fmt.Errorf("-%s %s: line %d: want %s", flag, path, n, want)
		}
		all = append(all, sha256.Sum256([]byte(line)))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("-%s %s: there is none: nobody could read", flag, path)
	}
	return all, nil
}

// contain reports whether text is one of the secrets.
func (s secrets) contain(text string) bool {
	sum, found := sha256.Sum256([]byte(text)), 0
	for i := range s {
		found |= subtle.ConstantTimeCompare(sum[:], s[i][:])
	}
	return found == 1
}
