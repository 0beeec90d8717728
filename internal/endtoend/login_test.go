package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/awstest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// requireStocked verifies a tarball, by what was pushed.
func (w *world) requireStocked(f finished, name, source string) {
	w.t.Helper()
	r := f.of(w.t, name)
	require.Equal(w.t, "stocked", r.Outcome, f.stderr)
	assert.Equal(w.t, source+":"+name+hash, r.Source)
	stocked, err := tarball.Open(filepath.Join(w.dir, name+"_main.tar"))
	require.NoError(w.t, err)
	defer stocked.Close()
	require.NoError(w.t, stocked.Verify(w.t.Context(), nil))
	digest, err := w.images[name].Digest()
	require.NoError(w.t, err)
	assert.Equal(w.t, digest, stocked.Image.Digest())
	assert.Equal(w.t, ecrImage+":"+name+hash, stocked.Image.Reference())
}

// The workflow's job: two images from the mirror, and that of a scheduled build,
// which the mirror does not have, from ECR with the job's own identity.
func TestScheduledBuild(t *testing.T) {
	w := newWorld(t)
	f := w.stock()
	require.Zero(t, f.code, f.stderr)
	w.requireStocked(f, names[0], mirrorImage)
	w.requireStocked(f, names[1], ecrImage)
	w.requireStocked(f, names[2], mirrorImage)
	w.requireNoSecret(f)

	require.Len(t, w.aws.Requests(awstest.STS), 1)
	form := w.aws.Requests(awstest.STS)[0].Form
	assert.Equal(t, role, form.Get("RoleArn"))
	assert.Equal(t, "18000", form.Get("DurationSeconds"))
	require.Len(t, w.aws.Requests(awstest.ECR), 1, "one password for all")
	assert.Equal(t, "us-east-1", w.aws.Requests(awstest.ECR)[0].Region)
	assert.Contains(t, f.stderr, "credential=GITHUB_TOKEN")
	assert.Contains(t, f.stderr, "credential=AWS")
	for i, secret := range w.aws.Secrets() {
		assert.Equal(t, 1, strings.Count(f.stderr, "::add-mask::"+secret+"\n"), "%d %s", i, secret)
	}
	for _, secret := range append(w.ghcr.Tokens(), jobToken, basic("octocat", jobToken)) {
		assert.Equal(t, 1, strings.Count(f.stderr, "::add-mask::"+secret+"\n"))
	}
	assert.NotContains(t, f.stderr, "::add-mask::308535385114", "the runner would drop outputs that hold the account")
}

// Every kind of secret is used: the password in Docker's config file, the job's
// token and the tokens of ghcr.io, all that AWS gives, and signed URLs that end.
// Each goes to whom it is for, and is hidden.
func TestEverySecretIsUsed(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, 1)
	const mirror = fleetHost + "/mirror/ci-image"
	_, err := w.fleet.Push("mirror/ci-image:"+names[0]+hash, w.images[names[0]])
	require.NoError(t, err)
	f := w.run(dockerCache, "-v", "-json", "-quiet", "-dir", w.dir, "-branch", "main", "-mirror", mirror, "-mirror", mirrorImage, "-role-arn", role,
		ecrImage+":"+names[0]+hash, ecrImage+":"+names[1]+hash, ecrImage+":"+names[2]+hash)
	require.Zero(t, f.code, f.stderr)
	w.requireStocked(f, names[0], mirror)
	w.requireStocked(f, names[1], ecrImage)
	w.requireStocked(f, names[2], mirrorImage)
	w.requireNoSecret(f)
	assert.Contains(t, f.stderr, `credential="Docker's config file"`)
	assert.Contains(t, f.stderr, "::add-mask::"+fleetPassword+"\n")
	assert.Contains(t, f.stderr, "::add-mask::"+basic("fleet", fleetPassword)+"\n")
	assert.NotEmpty(t, w.ghcr.Tokens())
	assert.NotEmpty(t, w.storage.Requests(), "ECR's")
	assert.NotEmpty(t, w.packages.Requests())

	// And none is in the errors of storage that is gone, or refuses.
	w.net.Kill(packagesHost)
	w.storage.Refuse()
	require.NoError(t, os.Remove(filepath.Join(w.dir, names[2]+"_main.tar")))
	f = w.run(dockerCache, "-v", "-json", "-quiet", "-dir", w.dir, "-branch", "main", "-mirror", mirrorImage, "-role-arn", role, ecrImage+":"+names[2]+hash)
	assert.Equal(t, 1, f.code)
	says := f.of(t, names[2]).Error
	assert.Contains(t, says, mirrorImage+": unreachable")
	assert.Contains(t, says, ecrImage+": unreachable")
	w.requireNoSecret(f)
}

// A mirror that loses its power in the middle costs no restart: ECR is logged in
// to on the way, and gives what is missing.
func TestMirrorIsKilledOnTheWay(t *testing.T) {
	w := newWorld(t)
	stalled := make(chan struct{})
	w.ghcr.SetQuirks(registrytest.Quirks{Token: true, Public: true, User: "octocat", Password: jobToken, Stall: true, Stalled: stalled})
	go func() {
		<-stalled // a layer is half there
		w.net.Kill("ghcr.io")
	}()
	f := w.run(dockerCache, "-v", "-json", "-quiet", "-dir", w.dir, "-branch", "main", "-mirror", mirrorImage, "-role-arn", role, ecrImage+":"+names[0]+hash)
	require.Zero(t, f.code, f.stderr)
	w.requireStocked(f, names[0], mirrorImage)
	assert.Equal(t, w.sizeOf(names[0]), f.of(t, names[0]).once(), "each byte was written once")
	assert.NotEmpty(t, w.storage.Requests())
	w.requireNoSecret(f)
}

// sizeOf returns how many bytes the layers of images have, those in common once.
func (w *world) sizeOf(names ...string) (n int64) {
	w.t.Helper()
	seen := map[string]bool{}
	for _, name := range names {
		manifest, err := w.images[name].Manifest()
		require.NoError(w.t, err)
		for _, l := range manifest.Layers {
			if !seen[l.Digest.String()] {
				seen[l.Digest.String()] = true
				n += l.Size
			}
		}
	}
	return n
}

// AWS that is busy for longer than its SDK has patience, when a password ends in
// the middle, is waited for: what is there already is worth it.
func TestAWSIsBusyOnTheWay(t *testing.T) {
	w := newWorld(t)
	var asked atomic.Int64
	w.ecr.SetQuirks(registrytest.Quirks{Storage: w.storage, Admits: func(user, password string) bool {
		if asked.Add(1) == 5 { // after the login, manifest, config, and a layer
			w.aws.ExpirePasswords()
			w.aws.SetQuirks(awstest.Quirks{Role: role, ECRThrottled: true, ECRThrottledCount: 7})
		}
		return w.aws.GoodPassword(user, password)
	}})
	f := w.run(dockerCache, "-v", "-json", "-quiet", "-connections", "1", "-dir", w.dir, "-branch", "main", "-role-arn", role, ecrImage+":"+names[0]+hash)
	require.Zero(t, f.code, f.stderr)
	w.requireStocked(f, names[0], ecrImage)
	assert.Equal(t, 7, w.aws.Happened("ECRThrottled"), "a request asks twice, the SDK three times each")
	w.requireNoSecret(f)
}

// Outside of Actions nothing is sent to a runner, and in a file nothing at all.
func TestMasksAreForTheRunnerAlone(t *testing.T) {
	w := newWorld(t)
	w.env = append(w.env, "GITHUB_ACTIONS=")
	f := w.stock()
	require.Zero(t, f.code, f.stderr)
	assert.NotContains(t, f.stderr, "::add-mask")
	w.requireNoSecret(f)
}

// No AWS is asked when the mirror has all.
func TestMirrorNeedsNoAWS(t *testing.T) {
	w := newWorld(t)
	_, err := w.ghcr.Push("pytorch/ci-image:"+names[1]+hash, w.images[names[1]])
	require.NoError(t, err)
	f := w.stock()
	require.Zero(t, f.code, f.stderr)
	for _, service := range []string{awstest.OIDC, awstest.STS, awstest.ECR} {
		assert.Empty(t, w.aws.Requests(service))
	}
}

// A token that is denied does not stand in the way of a public mirror.
func TestBadTokenForPublicMirror(t *testing.T) {
	w := newWorld(t)
	w.env = append(w.env, "GITHUB_TOKEN=ghs_bad-token")
	w.secrets = append(w.secrets, "ghs_bad-token")
	f := w.stock()
	require.Zero(t, f.code, f.stderr)
	w.requireStocked(f, names[0], mirrorImage)
	assert.Contains(t, f.stderr, "credential=anonymous")
	w.requireNoSecret(f)
}

// Passwords, credentials of the role and signed URLs end many times on the way.
func TestEverythingExpiresOnTheWay(t *testing.T) {
	w := newWorldWith(t, 2)
	w.aws.SetQuirks(awstest.Quirks{Role: role, CredentialUses: 1})
	var asked, ended atomic.Int64
	w.ecr.SetQuirks(registrytest.Quirks{Storage: w.storage, CutBodyAfter: mib, Admits: func(user, password string) bool {
		if asked.Add(1)%8 == 0 {
			ended.Add(1)
			w.aws.ExpirePasswords()
		}
		return w.aws.GoodPassword(user, password)
	}})
	w.ghcr.SetQuirks(registrytest.Quirks{Token: true, Status: 404})
	f := w.stock("-connections", "1", "-jobs", "1")
	require.Zero(t, f.code, f.stderr)
	for _, name := range names {
		w.requireStocked(f, name, ecrImage)
		assert.Equal(t, w.sizeOf(name), f.of(t, name).once()+f.of(t, name).BytesReused, "each byte was written once")
	}
	sent := int64(0)
	for _, r := range w.storage.Requests() {
		sent += r.Sent
	}
	assert.Equal(t, w.sizeOf(names...), sent, "and sent once, the layer that they share for all of them")
	assert.GreaterOrEqual(t, w.storage.Expired(), 3)
	assert.GreaterOrEqual(t, ended.Load(), int64(3))
	assert.GreaterOrEqual(t, len(w.aws.Requests(awstest.STS)), 3, "new credentials of the role")
	w.requireNoSecret(f)
}

// What goes wrong with AWS is said as such, stops no image that the mirror has,
// and leaves nothing behind.
func TestAWSFails(t *testing.T) {
	for what, c := range map[string]struct {
		quirks awstest.Quirks
		env    []string
		says   []string
	}{
		"role denied": {awstest.Quirks{RoleDenied: true}, nil, []string{"role not assumed", role, "trust policy"}},
		"no OIDC, no other credentials": {awstest.Quirks{}, []string{"ACTIONS_ID_TOKEN_REQUEST_URL=", "ACTIONS_ID_TOKEN_REQUEST_TOKEN="},
			[]string{"no AWS credentials", "ACTIONS_ID_TOKEN_REQUEST_URL is not set", "id-token: write"}},
		"ECR denied":         {awstest.Quirks{ECRDenied: true}, nil, []string{"no authorization token", "GetAuthorizationToken"}},
		"malformed ID token": {awstest.Quirks{MalformedIDToken: true}, nil, []string{"no ID token"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.aws.SetQuirks(c.quirks)
			w.env = append(w.env, c.env...)
			f := w.stock()
			assert.Equal(t, 1, f.code)
			w.requireStocked(f, names[0], mirrorImage)
			failed := f.of(t, names[1])
			assert.Equal(t, "failed", failed.Outcome)
			for _, says := range c.says {
				assert.Contains(t, failed.Error, says)
			}
			assert.Contains(t, failed.Error, mirrorImage+":"+names[1]+hash+": not found", "the mirror's answer is reported apart")
			assert.NotContains(t, failed.Error, "denied: status", "no anonymous attempt hides it")
			assert.NotContains(t, f.stderr, "docker login")
			_, err := os.Stat(filepath.Join(w.dir, names[1]+"_main.tar"))
			require.ErrorIs(t, err, os.ErrNotExist)
			w.requireNoSecret(f)
		})
	}
}

// A clock that is wrong, and a busy AWS, cost a few requests and nothing else.
func TestAWSIsDifficult(t *testing.T) {
	for what, quirks := range map[string]awstest.Quirks{
		"throttled":     {Role: role, STSThrottled: true, STSThrottledCount: 1, ECRThrottled: true, ECRThrottledCount: 1},
		"clock":         {Role: role, ClockSkew: -3 << 40}, // some 55 min
		"other account": {Role: role, OtherAccount: "210987654321"},
		"no keys":       {Role: role, InvalidIdentityToken: true, InvalidIdentityTokenCount: 1},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.aws.SetQuirks(quirks)
			f := w.stock()
			require.Zero(t, f.code, f.stderr)
			w.requireStocked(f, names[1], ecrImage)
			w.requireNoSecret(f)
			if strings.HasPrefix(what, "other") {
				assert.Contains(t, f.stderr, "210987654321")
			}
		})
	}
}

// A registry that the password does not please says so, and who said it.
func TestECRDeniesTheRole(t *testing.T) {
	w := newWorld(t)
	w.ecr.SetQuirks(registrytest.Quirks{Admits: func(string, string) bool { return false }})
	f := w.stock()
	assert.Equal(t, 1, f.code)
	assert.Contains(t, f.of(t, names[1]).Error, "(asked with: AWS, then anonymous)")
	w.requireNoSecret(f)
}
