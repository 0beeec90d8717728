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
// # Credentials
//
// They come from an authn.Keychain of go-containerregistry; by default Docker's config file and the
// credential helpers that it names, else none. The file is read, never written.
// A credential is sent to the registry that it is for and to the token server
// which that registry names, and never to the target of a redirect.
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
