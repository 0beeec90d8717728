// Package registry resolves references of container images in registries and
// reads ranges of their blobs.
//
//	client := registry.New(nil)
//	resolved, err := client.Resolve(ctx, registry.DefaultPlatform(), mirror, own) // one request
//	…
//	if resolved.Digest() == known {
//		return
//	}
//	manifest, config, err := resolved.Content(ctx) // asks for the rest, once
//	…
//	body, err := resolved.ReadRange(ctx, layer.Digest, 0, layer.Size)
//
// [Client.Resolve] takes the references of one image in the order in which they
// are tried: mirrors first, its own registry last. From the manifest on, everything
// is asked for by digest, so any of the repositories can serve it. [Client.Image]
// resolves and loads manifest and config in one call.
//
// An index, or an index within one, is resolved to the manifest that is nearest to the
// platform, by containerd's rules. [Resolved.Indexes] returns the indexes on the way,
// [Resolved.Companions] counts what they list beside the image, such as attestations.
//
// # Images
//
// What an engine takes is an image, also when its config or its layers have a media type
// that the specification does not list; of the config no more is read than is needed. An
// artifact, such as a Helm chart or a signature, is refused with [ErrUnsupported], and so
// are schema 1 manifests, documents that could be read in two ways (a manifest that also
// is an index, a field that is there twice or in two cases), more than 500 layers, and
// digests other than sha256.
//
// # Credentials
//
// They come from an authn.Keychain of go-containerregistry. A [Chain] is an
// ordered list of keychains: the first that has a credential for the registry is
// used; when the registry denies it the next one's is, and last none at all, since
// the image may be public and the credential for something else. The log has the
// name of the keychain whose credential the registry answered to. A keychain that
// fails is passed over for one that has a credential, with a warning, and is part
// of the error when that one is denied; when no other has one, its error is
// returned and no anonymous attempt is made. The default is [DefaultChain]: the
// environment's GITHUB_TOKEN or GH_TOKEN for ghcr.io, then Docker's config file
// with its credential helpers, which is read, never written. Package awsauth, below
// this one, has a keychain for Amazon's registries.
//
// A token is renewed when the registry denies it, and so is the credential that it
// was given for, see [Refuser]. A credential is sent to the registry that it is for
// and to the token server which that registry names, and never to the target of a
// redirect.
//
// # Sources
//
// Each reference that Resolve was given is a source of the image's blobs, except
// those that it asked and that do not have the image. A range that one does not
// serve comes from the next. A source that fails three times in a row, or does not
// answer a login or a request for an image after all retries, is set aside for
// 30 s, then for longer, up to 5 min: it is asked after the others, and not at all
// for an image that others may have. With [Options.AllSources] ranges come from all
// at once; with [Options.MirrorsMustAgree] a mirror must have what the image's own
// registry has.
//
// Registries on a loopback address may speak plain HTTP. Any other must speak
// HTTPS unless [Options.PlainHTTP] names it, and so must every redirect.
//
// # Errors
//
// Each error of a registry is an [*Error] that wraps one of the kinds declared
// beside it ([ErrNotFound], [ErrDenied], [ErrUnreachable], …), and names the
// source. When a context ends, the error wraps both its Err and its cause. Query
// strings, which sign the URLs of blob storage, are in no error and no log line.
//
// The protocol is the OCI distribution specification's
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md).
//
// # Concurrency
//
// A [Client], a [Resolved], an [Image] and a [Chain] are safe for concurrent use. A
// keychain and the functions in [Options] are called concurrently. Options are copied.
package registry
