// Tarball-name prints the names that this project derives from an image's
// reference and the branch that it was built from.
//
//	tarball-name [-naming SCHEME] [-name NAME] [-mirror PREFIX=AT] IMAGE BRANCH
package main

import (
	"context"
	"fmt"

	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/naming"
)

var program = cli.Program{
	Name: "tarball-name",
	Usage: `Usage: tarball-name [flags] IMAGE BRANCH

Prints the names derived from an image and the branch it was built from. BRANCH may be
left out where names have no suffix.
`,
	Notes: `Exit codes: 0 printed, 1 there is no such name, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{}
		o.naming.Register(f.FlagSet)
		o.naming.RegisterMirrors(f.FlagSet, "; the references there are printed too")
		f.StringVar(&o.platform, "platform", "", "the image's platform, as `OS/ARCH`[/VARIANT], where it is part of the name")
		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	naming                  naming.Flags
	platform, image, branch string
}

func (o *options) Check(args []string) error {
	if err := cli.FlagsFirst(args, "an argument"); err != nil {
		return err
	}
	if len(args) == 1 && o.naming.Scheme.NoSuffix {
		args = append(args, "")
	}
	if len(args) != 2 {
		return fmt.Errorf("want IMAGE and BRANCH, got %d arguments", len(args))
	}
	o.image, o.branch = args[0], args[1]
	return o.naming.Check(args[:1])
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if text, err := o.names(); err != nil {
		out.Fail(err)
	} else {
		out.Print(nil, text)
		out.Remind(o.naming.Remark([]string{o.image}, o.branch))
	}
	return out.Code(ctx)
}

// names returns all names or none, as NAME=VALUE for a shell to read: no value can
// contain a space or a line's end.
func (o *options) names() (string, error) {
	names, err := o.naming.Names(o.image, o.branch, o.platform)
	if err != nil {
		return "", err
	}
	text := "tarball=" + names.Tarball + "\nrepotag=" + names.RepoTag
	mirrors, err := o.naming.Mirrors.Mirrors(o.image)
	if err != nil {
		return "", err
	}
	for _, m := range mirrors {
		text += "\nmirror=" + m
	}
	return text, nil
}
