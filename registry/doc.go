// Package registry is the remote side: it resolves references of container
// images in registries and reads ranges of their blobs.
//
//	client := registry.New(nil)
//	image, err := client.Resolve(ctx, registry.DefaultPlatform(), mirror, own)
//	…
//	body, err := image.ReadRange(ctx, layer.Digest, 0, layer.Size)
//
// [Client.Resolve] takes the references of one image in the order in which they
// shall be tried: mirrors first, its own registry last. From the manifest on,
// everything is asked for by digest, so any of the repositories can serve it.
//
// [Client.Find] is its first half, and tells which image it is with one request.
//
// # Credentials
//
// They come from an authn.Keychain of go-containerregistry. A [Chain] is an
// ordered list of them: the first that has a credential for the registry is
// used; when the registry denies it the next one's is, and at last none at all,
// since the image may be public and the credential for something else. What
// answered is in the log. A keychain that fails is passed over for one that has
// a credential, with a warning, and is part of the error when that one is denied;
// when none has, its error is the answer, and not an anonymous attempt. The
// default is [DefaultChain]: the environment's GITHUB_TOKEN or
// GH_TOKEN for ghcr.io, then Docker's config file with its credential helpers,
// which is read, never written. Amazon's registries are for the keychain of the
// package awsauth, below this one.
//
// A token is renewed when the registry no longer takes it, and so is the
// credential behind it. A credential is sent to the registry that it is for and
// to the token server which that registry names, and never to the target of a
// redirect.
//
// # Sources
//
// Each reference that Resolve was given is a source of the image's blobs, but for
// those that it asked before and that do not have the image. A range
// that one does not give comes from the next, and one that fails three times in
// a row, or does not answer a login or a request for an image after all retries,
// is set aside for 30 s, then for longer, up to 5 min: it is asked after the
// others, and not at all for an image that others may have. With
// [Options.AllSources] ranges come from all at once; with [Options.MirrorsMustAgree]
// a mirror must have what the image's own registry has.
//
// Registries on a loopback address may speak plain HTTP. Any other must speak
// HTTPS unless [Options.PlainHTTP] names it, and so must every redirect.
//
// # Errors
//
// Each error from a registry is an [*Error] that wraps one of the kinds declared
// beside it ([ErrNotFound], [ErrDenied], [ErrUnreachable], …), and says where
// the trouble is. Query strings, which sign the URLs of blob storage, are in no
// error and no log line.
//
// The protocol is the OCI distribution specification's
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md).
package registry
