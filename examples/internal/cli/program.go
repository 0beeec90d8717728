package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/artifacts/workflow"
)

// A Program is a command line: what -h prints, flags, and what to run.
type Program struct {
	// Name is how it is called, such as "cache-admin prune".
	Name string
	// Usage is what -h prints before the flags, Notes what it prints after them.
	Usage, Notes string
	// Setup defines the flags and returns what they configure.
	Setup func(f *FlagSet) Runner
	// Commands are those of a program that is run as NAME COMMAND; it has no Setup.
	Commands []Program
}

// A Runner is a program whose flags were read.
type Runner interface {
	// Check returns what is wrong with the flags and arguments together, and fills in
	// defaults.
	Check(args []string) error
	// Run returns the exit code.
	Run(ctx context.Context, out *Output) int
}

// A FlagSet has the flags of a program, -version included, and what it prints.
type FlagSet struct {
	*flag.FlagSet
	output   options
	sections []section
}

// A section is flags that belong together.
type section struct {
	title  string
	before map[string]bool // the flags that were defined before it
}

// Section begins a section of the help, with the flags that are defined from now on. Those
// before the first have no title.
func (f *FlagSet) Section(title string) {
	before := map[string]bool{}
	f.VisitAll(func(g *flag.Flag) { before[g.Name] = true })
	f.sections = append(f.sections, section{title, before})
}

// sectionOf returns the section that a flag is in, from 1; 0 for those before the first.
func (f *FlagSet) sectionOf(name string) int {
	i := len(f.sections)
	for i > 0 && f.sections[i-1].before[name] {
		i--
	}
	return i
}

// GivenIn returns which flag of a section was given, as "-name"; "" if none was.
func (f *FlagSet) GivenIn(title string) (given string) {
	f.Visit(func(g *flag.Flag) {
		if i := f.sectionOf(g.Name); given == "" && i > 0 && f.sections[i-1].title == title {
			given = "-" + g.Name
		}
	})
	return given
}

// help prints the flags.
func (f *FlagSet) help(w io.Writer) {
	for i := range len(f.sections) + 1 {
		part := flag.NewFlagSet("", flag.ContinueOnError)
		part.SetOutput(w)
		f.VisitAll(func(g *flag.Flag) {
			if f.sectionOf(g.Name) == i {
				part.Var(g.Value, g.Name, g.Usage)
				part.Lookup(g.Name).DefValue = g.DefValue // and not what came before -h
			}
		})
		title := "Flags"
		if i > 0 {
			title = f.sections[i-1].title
		}
		fmt.Fprintf(w, "\n%s:\n", title)
		part.PrintDefaults()
	}
}

// JSONFlag defines -json.
func (f *FlagSet) JSONFlag(usage string) { f.BoolVar(&f.output.json, "json", false, usage) }

// QuietFlag defines -quiet. Without the flag no progress is shown.
func (f *FlagSet) QuietFlag() {
	f.output.progress = true
	f.BoolVar(&f.output.quiet, "quiet", false, "show no progress on standard error")
}

// VerboseFlag defines -v.
func (f *FlagSet) VerboseFlag(usage string) { f.BoolVar(&f.output.verbose, "v", false, usage) }

// Annotate makes errors and warnings annotations of the run in GitHub Actions.
func (f *FlagSet) Annotate() { f.output.annotate = true }

// Advice sets what returns the text that is printed after an error: what a person can do
// about it, "" for nothing.
func (f *FlagSet) Advice(advice func(error) string) { f.output.advice = advice }

// Failure marks an error that [Runner.Check] found outside of the command line, such
// as in the event that started a job: the exit code is [Failed].
func Failure(err error) error { return &failure{err} }

type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// Run reads the command line and runs the program. It returns the exit code.
func (p *Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "help" && (len(args) == 1 || p.Commands != nil) {
		args = append(slices.Clone(args[1:]), "-h")
	}
	f := &FlagSet{FlagSet: flag.NewFlagSet(p.Name, flag.ContinueOnError)}
	version := f.Bool("version", false, "print the version")
	if p.Commands != nil && len(args) > 0 {
		name := func(c Program) bool { return strings.TrimPrefix(c.Name, p.Name+" ") == args[0] }
		if i := slices.IndexFunc(p.Commands, name); i >= 0 {
			return p.Commands[i].Run(ctx, args[1:], stdout, stderr)
		}
	}
	var runner Runner = commandless{p.Commands}
	if p.Setup != nil {
		runner = p.Setup(f)
	}
	err := p.parse(f, args, stdout)
	if err != nil && p.Commands != nil && !errors.Is(err, flag.ErrHelp) {
		err = fmt.Errorf("%q comes before the COMMAND: flags go after it", args[0])
	}
	if err == nil && *version {
		printVersion(stdout, p.Name)
		return OK
	}
	if err == nil {
		err = runner.Check(f.Args())
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return OK
	case err != nil:
		return p.refuse(stderr, err)
	}
	out := newOutput(p.program(), stdout, stderr, f.output)
	defer out.Stop()
	return runner.Run(ctx, out)
}

// parse reads the flags. One that is given and empty is an error: most often it is a
// variable that is not set.
func (p *Program) parse(f *FlagSet, args []string, stdout io.Writer) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, p.Usage)
		f.help(stdout)
		fmt.Fprint(stdout, "\n", p.Notes)
	}
	if err != nil {
		return err
	}
	f.Visit(func(g *flag.Flag) {
		if g.Value.String() == "" && err == nil {
			err = fmt.Errorf("-%s is empty: was a variable not set?", g.Name)
		}
	})
	return err
}

// refuse prints what is wrong with a command line. What it quotes may not be trusted:
// nothing of it becomes a command to a CI runner.
func (p *Program) refuse(stderr io.Writer, err error) int {
	text := err.Error()
	failed := errors.As(err, new(*failure))
	if advice := fileAdvice(err); failed && advice != "" {
		text += "\n  What to do: " + advice
	}
	fmt.Fprintf(stderr, "%s: %s\n", p.program(), workflow.Plain(text))
	if failed {
		return Failed
	}
	fmt.Fprintf(stderr, "Run \"%s -h\" for help.\n", p.Name)
	return Usage
}

// program returns the name without that of the command.
func (p *Program) program() string {
	name, _, _ := strings.Cut(p.Name, " ")
	return name
}

// commandless is a program with commands of which none was given.
type commandless struct{ commands []Program }

func (c commandless) Check(args []string) error {
	var names []string
	for _, p := range c.commands {
		names = append(names, p.Name[strings.LastIndex(p.Name, " ")+1:])
	}
	if len(args) == 0 {
		return errors.New("no COMMAND was given")
	}
	return fmt.Errorf("%q is no COMMAND: want one of %s", args[0], strings.Join(names, ", "))
}

func (commandless) Run(context.Context, *Output) int { return Usage }

// printVersion prints what the go command recorded of a program's origin.
func printVersion(w io.Writer, name string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	text := name + " " + info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			text += ", revision " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			text += " with changes"
		}
	}
	fmt.Fprintf(w, "%s, %s\n", text, info.GoVersion)
}

// FlagsFirst returns an error if a flag comes after an argument, which is called what.
func FlagsFirst(args []string, what string) error {
	if i := slices.IndexFunc(args, func(s string) bool { return strings.HasPrefix(s, "-") }); i >= 0 {
		return fmt.Errorf("%q comes after %s: flags go first", args[i], what)
	}
	return nil
}

// Images returns what is wrong with arguments that should be images.
func Images(args []string) error {
	if len(args) == 0 {
		return errors.New("no IMAGE was given")
	}
	return FlagsFirst(args, "an IMAGE")
}

// FlagsOnly returns an error if there is an argument.
func FlagsOnly(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: there are only flags", args[0])
	}
	return nil
}

// VerboseUsage is the help of -v.
const VerboseUsage = "log on standard error what is tried"

// Dir returns the directory of tarballs that was given, or the default one of the
// workflow that this project replaces.
func Dir(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("-dir was not given, and its default cannot be made: %w", err)
	}
	return filepath.Join(home, "pytorch-data", "docker"), nil
}
