package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	user, password = "fleet", "registry-password"
	// htpasswd is the file that docker-registry reads, which takes bcrypt alone.
	htpasswd = user + ":$2a$05$8RpXdJ7Vf.Z9g/ApKVkqbe/xO0CTqavWU7pZM2ZZgpJnL5NmDnXne"
)

// A real registry with a password, which the program has from Docker's config
// file or from a credential helper; and what it says without it.
func TestPasswordRegistry(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "htpasswd")
	require.NoError(t, os.WriteFile(passwords, []byte(htpasswd+"\n"), 0o600))
	host := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: fleet, path: %s}}", passwords))
	tag, err := name.NewTag(host + "/team/image:jammy-1")
	require.NoError(t, err)
	image, err := random.Image(1<<20, 3)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, image, remote.WithAuth(&authn.Basic{Username: user, Password: password})))
	program := buildExample(t, "docker-cache")

	secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	helper := fmt.Sprintf("#!/bin/sh\necho '{\"Username\":\"%s\",\"Secret\":\"%s\"}'\n", user, password)
	for what, c := range map[string]struct {
		config string
		says   string // "" when it works
	}{
		"config file":    {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, secret), ""},
		"helper":         {fmt.Sprintf(`{"credHelpers":{%q:"fleet"}}`, host), ""},
		"nothing":        {`{}`, "denied: status 401 Unauthorized: UNAUTHORIZED authentication required (asked with: anonymous)"},
		"wrong password": {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":wrong-"+password))), "(asked with: Docker's config file, then anonymous)"},
		"missing helper": {fmt.Sprintf(`{"credHelpers":{%q:"absent"}}`, host), "no credentials: Docker's config file: "},
	} {
		t.Run(what, func(t *testing.T) {
			config, dir := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(config, "config.json"), []byte(c.config), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(config, "docker-credential-fleet"), []byte(helper), 0o700))
			cmd := exec.CommandContext(t.Context(), program, "-v", "-dir", dir, "-branch", "main", tag.Name())
			cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+config, "HOME="+config, "PATH="+config+":"+os.Getenv("PATH"))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if c.says == "" {
				require.NoError(t, err, out.String())
				assert.FileExists(t, filepath.Join(dir, "jammy_main.tar"))
				assert.Contains(t, out.String(), `credential="Docker's config file"`)
			} else {
				require.Error(t, err)
				assert.Contains(t, out.String(), c.says)
				entries, err := filepath.Glob(filepath.Join(dir, "*"))
				require.NoError(t, err)
				assert.Empty(t, slices.DeleteFunc(entries, func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".history.") }))
			}
			assert.NotContains(t, out.String(), password)
			assert.NotContains(t, out.String(), secret)
			require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				assert.NotContains(t, string(content), password, path)
				return err
			}))
			raw, err := os.ReadFile(filepath.Join(config, "config.json"))
			require.NoError(t, err)
			assert.Equal(t, c.config, string(raw), "Docker's config file is read, never written")
		})
	}
}
