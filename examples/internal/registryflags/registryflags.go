// Package registryflags has the flags of the examples that read from registries, and
// makes clients of them. It also knows what a person can do about errors of
// registries and of the cache.
package registryflags

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// Flags are the values of the flags; see [Flags.Register].
type Flags struct {
	RoleARN, Region string
	RoleDuration    cli.Seconds
	PlainHTTP, CA   cli.List
	AllowLocal      bool

	firstByte, stall cli.Duration // see RegisterLimits
	image, run       cli.DurationOrNone
}

// Register defines the flags, but not -role-duration, in a set.
func (f *Flags) Register(set *flag.FlagSet) {
	set.StringVar(&f.RoleARN, "role-arn", "", "the AWS role, by its `ARN`, that a GitHub job with \"permissions: id-token: write\" assumes to read ECR (default: AWS's own variables and files)")
	set.StringVar(&f.Region, "region", "", "the AWS `REGION` to ask for the role (default: AWS's own variables)")
	set.Var(&f.PlainHTTP, "plain-http", "a registry, as `HOST[:PORT]`, that may be spoken to without TLS; may be repeated")
	set.Var(&f.CA, "ca", "a `FILE` of certificates in PEM that are trusted beside the system's and those of Docker and podman (/etc/docker/certs.d, /etc/containers/certs.d); may be repeated")
	set.BoolVar(&f.AllowLocal, "allow-local", false, "let a registry elsewhere lead to addresses of this machine, of its link (a cloud's metadata) and of private networks")
}

// Check returns what is wrong with the flags.
func (f *Flags) Check() error {
	for _, host := range f.PlainHTTP {
		if host == "" || strings.ContainsAny(host, "/ @?#") {
			// Not quoted as it is: it may have a password.
			return fmt.Errorf("-plain-http %q: want HOST or HOST:PORT, without a scheme, user or path", refname.Printable(host))
		}
	}
	if _, err := f.cas(); err != nil {
		return err
	}
	if _, err := f.keychain(&cli.Output{}); err != nil {
		return fmt.Errorf("credentials of AWS: %w", err)
	}
	return f.checkLimits()
}

// Client returns a client with the flags' values and the credentials of AWS for ECR,
// then those that package registry has by default. Secrets are masked. What o has
// goes before.
func (f *Flags) Client(out *cli.Output, o registry.Options) (*registry.Client, error) {
	if o.Keychain == nil {
		var err error
		if o.Keychain, err = f.keychain(out); err != nil {
			return nil, err
		}
	}
	cas, err := f.cas()
	if err != nil {
		return nil, err
	}
	o.CAs, o.AllowLocal = cas, f.AllowLocal
	o.FirstByteTimeout, o.StallTimeout = time.Duration(f.firstByte), time.Duration(f.stall)
	o.PlainHTTP, o.Logger, o.Secret = f.PlainHTTP, out.Log, out.Mask
	return registry.New(&o), nil
}

func (f *Flags) cas() (all []*x509.Certificate, err error) {
	for _, file := range f.CA {
		found, err := registry.ReadCAs(file)
		if err != nil {
			return nil, fmt.Errorf("-ca: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// keychain asks for nothing before a registry needs it.
func (f *Flags) keychain(out *cli.Output) (authn.Keychain, error) {
	aws, err := awsauth.NewKeychain(&awsauth.Options{
		RoleARN: f.RoleARN, Region: f.Region, Duration: time.Duration(f.RoleDuration), Logger: out.Log, Secret: out.Mask,
	})
	if err != nil {
		return nil, err
	}
	return append(registry.Chain{{Name: "AWS", Keychain: aws}}, registry.DefaultChain()...), nil
}

// Companions lists what an index has beside an image.
func Companions(all []registry.Companion) string {
	texts := make([]string, len(all))
	for i, c := range all {
		texts[i] = c.String()
	}
	return strings.Join(texts, ", ")
}

// A Tip is what a person can do about a kind of error.
type Tip struct {
	Kind error
	Text string
}

var tips = []Tip{
	{registry.ErrNoCredentials, "mend the file with the login (Docker's config.json, podman's auth.json) or the helper that it names"},
	{http.ErrSchemeMismatch, "if the registry speaks plain HTTP and the network in between can be trusted, allow it with -plain-http HOST:PORT"},
	{registry.ErrDisagree, "if the mirror is stale push the image there again; if it should never differ find out who pushed to it"},
	{registry.ErrDenied, "log in to the registry (docker login), or check what the credential may read"},
	{registry.ErrNotFound, "check the reference, and whether the build has pushed it there"},
	{registry.ErrCertificate, "trust the certificate's CA: give it with -ca FILE, put it into /etc/docker/certs.d/HOST[:PORT]/ca.crt (or containers' certs.d; a client's certificate too, as client.cert and client.key), or name a file of CAs in SSL_CERT_FILE"},
	{registry.ErrLocalAddress, "if the registry is meant to lead there allow it with -allow-local"},
	{registry.ErrUnreachable, "check the registry's name and the network, or try again later"}, // see unreachable
	{registry.ErrInvalidAnswer, "check that the host is a registry and that no proxy changes its answers"},
	{registry.ErrNoPlatform, "ask for one of these with -platform"},
	{tarball.ErrDigest, "a registry holds damaged bytes: push the image there again, or leave that mirror out"},
	{cache.ErrTooSlow, "run it again: what has come serves the next attempt; if its sources are always as slow name a faster one, or give a smaller -min-rate"},
	{ErrImageTime, "run it again: what has come serves the next attempt; -v shows what each source gives; or give it more time with -image-timeout"},
	{ErrRunTime, "run it again: what has come serves the next attempt; or give it more time with -timeout"},
	{cache.ErrQuota, "make room in the directory, or give a larger -quota"},
	{syscall.ENOSPC, "make room in the directory"},
}

// Advice returns a function that says what a person can do about an error, where that
// is known. A program's own tips replace those for the same kind; one without a text
// leaves it out.
func Advice(own ...Tip) func(error) string {
	all := slices.Concat(own, slices.DeleteFunc(slices.Clone(tips), func(t Tip) bool {
		return slices.ContainsFunc(own, func(o Tip) bool { return o.Kind == t.Kind })
	}))
	return func(err error) string {
		var found []string
		for _, t := range all {
			if t.Kind == registry.ErrInvalidAnswer && errors.Is(err, registry.ErrLocalAddress) {
				continue // it is one, see there
			}
			if t.Kind == registry.ErrNoCredentials && errors.As(err, new(*awsauth.Error)) {
				continue // it says itself what to do
			}
			if t.Kind == registry.ErrNoPlatform && errors.Is(err, registry.ErrNoImage) {
				continue // there is none to ask for
			}
			text := t.Text
			if t.Kind == registry.ErrUnreachable {
				text = unreachable(err, text)
			}
			if text != "" && errors.Is(err, t.Kind) && !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
		return strings.Join(found, "; ")
	}
}

// unreachable returns what can be done about a registry that is there, and answers too
// late or refuses; the other text for one that is not.
func unreachable(err error, other string) string {
	var refused tarball.RetryAfterError
	switch text := err.Error(); {
	case errors.As(err, &refused) && refused.RetryAfter() > 0, strings.Contains(text, "status 429"):
		return "the registry limits how much is asked of it: log in, since many allow more to users that they know; ask for less at a time with -connections; or try again later: what has come serves the next attempt"
	case strings.Contains(text, "first byte"):
		return "a registry that is a cache may have to fetch the layer first: give it more time with -first-byte-timeout, or try again later, when it has the layer"
	case strings.Contains(text, "no byte came"):
		return "try again later: what has come serves the next attempt; or give the registry more time with -stall-timeout"
	}
	return other
}
