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
// environment's GITHUB_TOKEN or GH_TOKEN for ghcr.io, then Docker's config file and
// podman's, with their credential helpers; the files are read, never written. Package
// awsauth, below this one, has a keychain for Amazon's registries.
//
// A token is renewed when the registry denies it, and so is the credential that it
// was given for, see [Refuser]. Each challenge is answered where it is asked, by the
// schemes that it offers in their order, Bearer and Basic. A credential is sent to the registry that it is for
// and to the token server which that registry names, and never to the target of a
// redirect. Another registry that a redirect leads to is asked with an anonymous
// token, if it wants one.
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
// [Image.EachOrigin] names the repositories of a blob, each to be read by itself, for a
// caller who measures how fast they are.
//
// # Hosts that refuse requests
//
// An answer 429, or 503 with a delay, is a refusal of its host: a registry's, a
// storage's or a token server's. Until the delay has passed no request of the client is
// made to it. The delay is in the header Retry-After, in seconds or as a date, or in the
// text of the answer, as ghcr.io writes it ("retry-after: 880.092µs"): the longer one counts,
// up to a minute. A 429 without one means [Options.RetryWait], which doubles with each
// refusal in a row.
//
// Ranges of blobs do not wait, and fail at once: their errors are temporary, and say how
// much of the delay is left. All other requests wait, also those of a login that a range
// needs, up to a tenth longer than the delay,
// but no longer than their contexts allow. Then one is made, and more with each that is
// served. They fail when nothing was served between five refusals in a row, or when one
// request was refused 20 times, and for 10 minutes, while others were served. So it is progress that counts:
// of many images at once each is resolved, however few requests the registry allows in a
// second.
//
// # Registries without ranges
//
// Whole blobs are asked for without a range. An answer to a range that speaks of the range
// (400, 405, 406, 411 to 414, 416, 417, 501, 505), or has another one's form, is
// [ErrNoRanges]: the blob can be read as a whole. Any other error, but 429 and 503, may
// mean something else: then the whole blob is asked for, without reading it, and if that
// is served and the range is refused once more, it is [ErrNoRanges] too. It is remembered
// for 10 minutes, since it may be the fault of a proxy: of the blob in that repository, and
// of all blobs there once three showed it or the registry answered a range with the whole.
// A storage that refuses signatures (401, 403) must do so for 2 s before it is looked into.
//
// Registries on a loopback address may speak plain HTTP. Any other must speak
// HTTPS unless [Options.PlainHTTP] names it, and so must every redirect. Only a
// registry that is on this machine, its link or a private network itself may lead
// there, see [Options.AllowLocal]. Certificates are read where Docker and podman have
// them, see [Options.CertDirs].
//
// # Errors
//
// Each error of a registry is an [*Error] that wraps one of the kinds declared
// beside it ([ErrNotFound], [ErrDenied], [ErrUnreachable], …), and names the
// source. When a context ends, the error wraps both its Err and its cause.
//
// What was sent as a secret is in no error and no log line, in whatever form a server
// sends it back; a secret of fewer than four bytes is recognised only in the base64
// that it is sent in. Of the URL of a request the scheme and host are shown: the rest
// may sign it.
//
// The protocol is the OCI distribution specification's
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md).
//
// # Concurrency
//
// A [Client], a [Resolved], an [Image] and a [Chain] are safe for concurrent use. A
// keychain and the functions in [Options] are called concurrently. Options are copied.
package registry
