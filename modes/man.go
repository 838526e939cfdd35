package modes

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/oserr"
	"imgcluster/config"
)

func newMan(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write the manual pages into a folder, which is made if need be: one of section 1
for each command, and imgcluster.yaml(5) with all settings. The Debian package
has them. Their date is that of SOURCE_DATE_EPOCH; without that they have none.`,
		Example: "  imgcluster man man && man -l man/imgcluster-put.1",
		Args:    args(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runMan(e, cmd.Root(), args[0]) },
	}
}

func runMan(e *env, root *cobra.Command, dir string) error {
	const other = "name a folder that can be written"
	date, err := manDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usagef(other, "%s cannot be made: %w", dir, oserr.NoPath(err))
	}
	pages, err := manPages(root, date)
	if err != nil {
		return err
	}
	for name, text := range pages {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return usagef(other, "%s cannot be written: %w", path, oserr.NoPath(err))
		}
	}
	e.say("%d pages are in %s", len(pages), dir)
	return nil
}

// manDate returns the date of a time in seconds since 1970, nothing for none.
func manDate(epoch string) (string, error) {
	if epoch == "" {
		return "", nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", usagef("give seconds since 1970, or unset it", "SOURCE_DATE_EPOCH is %q", epoch)
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly), nil
}

// manPages returns the text of all pages by the names of their files.
func manPages(root *cobra.Command, date string) (map[string]string, error) {
	settings, err := settingsPage(date)
	pages := map[string]string{config.DefaultPath + ".5": settings}
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd != root || cmd.Name() == "help" {
			return
		}
		pages[pageName(cmd)+".1"] = commandPage(cmd, date)
		for _, sub := range cmd.Commands() {
			add(sub)
		}
	}
	add(root)
	return pages, err
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// commandPage is the page of a command, in the macros of man(7).
func commandPage(cmd *cobra.Command, date string) string {
	p := newPage(pageName(cmd), 1, date)
	p.section("NAME")
	p.text(pageName(cmd) + " - " + cmd.Short)
	p.section("SYNOPSIS")
	p.text(strong(cmd.CommandPath()) + strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath()))
	p.section("DESCRIPTION")
	p.text(cmp.Or(cmd.Long, cmd.Short+"."))
	if cmd.HasAvailableSubCommands() {
		p.section("COMMANDS")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				p.item(strong(pageName(sub))+"(1)", sub.Short+".")
			}
		}
	}
	p.options("OPTIONS", cmd.NonInheritedFlags())
	p.options("OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	p.section("EXIT STATUS")
	e := endingOf(cmd)
	for _, status := range e.statuses {
		text := e.text(status)
		p.item(strong(strconv.Itoa(status)), strings.ToUpper(text[:1])+text[1:]+".")
	}
	if cmd == cmd.Root() {
		p.section("ENVIRONMENT")
		p.item(strong(config.EnvConfig), "The configuration file, as with --config.")
		p.item(strong(config.EnvAccessKey)+", "+strong(config.EnvSecretKey), "The access key that commands use.")
		p.item(strong(config.EnvMasterKey), "The master key, in place of its file.")
		p.item(strong("IMGCLUSTER_*"), "A setting each: see "+strong(config.DefaultPath)+"(5).")
		p.section("FILES")
		p.item(strong(config.DefaultPath), "The configuration, in the working directory.")
		p.item(strong("~/.config/imgcluster/credentials.yaml"),
			"The access key that commands use: access_key and secret_key, of mode 0600.")
	}
	p.section("EXAMPLES")
	p.literal(outdent(exampleOf(cmd)))
	p.section("SEE ALSO")
	also := []string{strong(config.DefaultPath) + "(5)"}
	for up := cmd.Parent(); up != nil; up = up.Parent() {
		also = append([]string{strong(pageName(up)) + "(1)"}, also...)
	}
	p.text(strings.Join(also, ", "))
	return p.String()
}

// settingsPage is the page of the configuration file.
func settingsPage(date string) (string, error) {
	example, err := config.Default().Draft()
	if err != nil {
		return "", err
	}
	p := newPage(config.DefaultPath, 5, date)
	p.section("NAME")
	p.text(config.DefaultPath + " - settings of imgcluster")
	p.section("DESCRIPTION")
	p.text(markdown(config.Introduction()))
	for _, section := range config.Reference() {
		p.section(strings.ToUpper(section.Name))
		p.text(markdown(section.About))
		for _, s := range section.Settings {
			p.item(strong(s.Key), markdown(fmt.Sprintf("%s\n\nType: %s. Default: `%s`. Environment: `%s`.",
				s.About, s.Values, s.Default, s.Env)))
			if s.Each == nil {
				continue
			}
			p.WriteString(".RS\n.PP\nEach has:\n")
			for _, of := range s.Each {
				p.item(strong(of.Key), markdown(of.Values+": "+of.About+"."))
			}
			p.WriteString(".RE\n")
		}
	}
	p.section("EXAMPLES")
	p.literal(strings.TrimSpace(string(example)))
	p.section("SEE ALSO")
	p.text(strong("imgcluster") + "(1), " + strong("imgcluster-config") + "(1)")
	return p.String(), nil
}

var (
	quoted   = regexp.MustCompile("`([^`]*)`")
	emphasis = regexp.MustCompile(`\*([^* ]*)\*`)
)

// markdown makes of Markdown the text that a page takes: its code is bold, and a list is of paragraphs.
func markdown(text string) string {
	text = emphasis.ReplaceAllString(text, "$1")
	text = quoted.ReplaceAllString(text, strong("$1"))
	return strings.NewReplacer("\n\n- ", "\n\n", "\n- ", "\n\n").Replace(text)
}

// page is a page under way, in the macros of man(7).
type page struct{ strings.Builder }

func newPage(name string, section int, date string) *page {
	p := &page{}
	fmt.Fprintf(p, ".TH %q %d %q %q %q\n", roff(strings.ToUpper(name)), section, date,
		"imgcluster "+roff(version()), "imgcluster")
	p.WriteString(".nh\n.ad l\n") // commands and keys are not hyphenated
	return p
}

func (p *page) section(name string) { fmt.Fprintf(p, ".SH %q\n", name) }

// text writes paragraphs. What is indented stays as it is.
func (p *page) text(text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			p.WriteString(".PP\n")
		}
		if strings.HasPrefix(paragraph, indented) {
			p.literal(outdent(paragraph))
			continue
		}
		fmt.Fprintln(p, styled(paragraph))
	}
}

// item writes a paragraph with a label. Those that follow in the text stay under it.
func (p *page) item(label, text string) {
	text = strings.ReplaceAll(styled(text), "\n\n", "\n.IP\n")
	fmt.Fprintf(p, ".TP\n%s\n%s\n", styled(label), text)
}

// literal writes lines as they are.
func (p *page) literal(lines string) { fmt.Fprintf(p, ".EX\n%s\n.EE\n", roff(lines)) }

// indented begins a line of a command's examples, and of its description where that stays as it is.
const indented = "  "

func outdent(lines string) string {
	return strings.ReplaceAll(strings.TrimPrefix(lines, indented), "\n"+indented, "\n")
}

// options writes a list of flags.
func (p *page) options(title string, flags *pflag.FlagSet) {
	none := true
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if none {
			p.section(title)
		}
		none = false
		value, usage := pflag.UnquoteUsage(f)
		label := strong("--" + f.Name)
		if f.Shorthand != "" {
			label = strong("-"+f.Shorthand) + ", " + label
		}
		zero := []string{"", "0", "0s", "false", "[]"}
		if !slices.Contains(zero, f.DefValue) && f.Name != "config" { // whose default is of the environment
			format := " (default %v)"
			if f.Value.Type() == "string" {
				format = " (default %q)"
			}
			usage += fmt.Sprintf(format, f.DefValue)
		}
		p.item(strings.TrimSuffix(label+" "+value, " "), strings.ToUpper(usage[:1])+usage[1:]+".")
	})
}

// mark stands around what is bold in the text that a page takes.
const mark = "\x01"

func strong(text string) string { return mark + text + mark }

var (
	bold      = regexp.MustCompile(mark + "([^" + mark + "]*)" + mark)
	marks     = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)
	dotsFirst = regexp.MustCompile(`(?m)^\.`) // would be macros
)

// roff escapes text.
func roff(text string) string { return dotsFirst.ReplaceAllString(marks.Replace(text), `\&.`) }

// styled is roff for text with bold parts.
func styled(text string) string { return bold.ReplaceAllString(roff(text), `\fB$1\fP`) }
