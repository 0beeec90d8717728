// Package dataroot unpacks images once, ahead of time, and hands engines their data root with
// the images in it: a job's engine starts with what it needs, in the time that it takes to
// mount a file.
//
//	dir, err := dataroot.Open("/srv/cache", nil)
//	docker := dataroot.Engine{Kind: dataroot.Docker}
//	result, err := dir.Build(ctx, "py3.12_main", docker, []*tarball.Tarball{t}, nil)
//
//	// for each job
//	clone, err := dir.Clone(ctx, result.Template.Name, "/var/lib/docker", nil)
//	// dockerd --data-root /var/lib/docker …, the job, dockerd ends
//	err = dataroot.Discard(ctx, "/var/lib/docker")
//
// # Templates
//
// A template is a sparse file with a file system (ext4) in which an engine has its data root,
// beside the tarballs and under a name that says what for:
//
//	py3.12_main.docker-20.10.24+dfsg1.overlay2.linux-amd64.dataroot
//
// [Dir.Build] makes it: it starts the engine's own program on a private socket, in mount,
// process and network namespaces of its own, loads by package loader, stops it, checks the file system
// with e2fsck, and publishes the file atomically. When it is called with other images, the
// engine runs on a clone of the template that is there, and gets what it lacks. The record of
// what a template holds is at the end of its file, see [Record], and is read without mounting.
//
// # Clones
//
// [Dir.Clone] shares all blocks of the template where the file system can (XFS with reflink,
// btrfs): that takes as long for 1 GiB as for 40, and no space. Elsewhere it copies what is no
// hole, and [Clone.Way] says so. A clone's file has no name: when it is unmounted, it is
// gone. So a process that is killed, and a machine that stops, leave nothing to clean up. A
// build that is killed leaves a temporary file and a small directory, which [Dir.Sweep] and
// later builds remove.
//
// Elsewhere btrfs could do with less: a template with btrfs inside, on a disk that is only read, as
// the seed of clones that add a local file to it and read what they use. It was tried with Linux
// 6.18: 0.08 s, on a busy machine 0.6 s, 5 MiB for each clone, several at once if each has a loop
// device of its own for the seed. It is not done, for templates would have to be built for it, and
// a clone would have two loop devices, neither of which is the device of its mount, by which
// clones are known when they are listed and discarded. Snapshots of btrfs would save nothing:
// to share the blocks of one file takes as long there.
//
// A template is only read after it has its name, so it may be replaced or removed while clones
// of it are in use.
//
// # What it needs
//
// Linux, root (in a container: privileged, with the machine's /dev), loop devices, ext4,
// mkfs.ext4 and e2fsck for building and verifying, and the engine's programs. Elsewhere the
// errors wrap [ErrUnsupported]. Templates are read by the kernel as file systems, so only files
// that root or this user alone may write are accepted.
//
// Two engines must not run on one clone, and an engine should have the version that built the
// template: others mostly upgrade what they find, which costs time in each job. See
// [CloneOptions.Engine].
package dataroot
