// Tarball-name prints the names that this project derives from an image's
// reference and the branch that it was built from.
//
//	tarball-name [-rules RULES] [-mirror REPOSITORY] IMAGE BRANCH
package main

import (
	"context"
	"fmt"

	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/tagging"
)

var program = cli.Program{
	Name: "tarball-name",
	Usage: `Usage: tarball-name [flags] IMAGE BRANCH

Prints the names derived from an image and the branch it was built from.
`,
	Notes: `Exit codes: 0 printed, 1 there is no such name, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{scheme: tagging.Scheme{Rules: tagging.PyTorchRules()}}
		f.Var(&o.scheme.Rules, "rules", cli.RulesUsage)
		f.StringVar(&o.mirror, "mirror", "", "also print the reference in this mirror `REPOSITORY`")
		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	scheme                tagging.Scheme
	mirror, image, branch string
}

func (o *options) Check(args []string) error {
	if err := cli.FlagsFirst(args, "an argument"); err != nil {
		return err
	}
	if len(args) != 2 {
		return fmt.Errorf("want IMAGE and BRANCH, got %d arguments", len(args))
	}
	o.image, o.branch = args[0], args[1]
	return nil
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if text, err := o.names(); err != nil {
		out.Fail(err)
	} else {
		out.Print(nil, text)
	}
	return out.Code(ctx)
}

// names returns all names or none, as NAME=VALUE for a shell to read: no value can
// contain a space or a line's end.
func (o *options) names() (string, error) {
	names, err := o.scheme.Names(o.image, o.branch, "")
	if err != nil {
		return "", err
	}
	text := "tarball=" + names.Tarball + "\nrepotag=" + names.RepoTag
	if o.mirror != "" {
		ref, err := tagging.Mirror(o.image, o.mirror)
		if err != nil {
			return "", err
		}
		text += "\nmirror=" + ref
	}
	return text, nil
}
