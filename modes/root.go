// Package modes is the command line: one file a command, with its options, the wiring of the
// packages below, and the words to the user. A command's runX function does the work and can be
// tested without cobra.
package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/term"
)

// env is what every command gets: where it reads and writes, and the options that all share.
type env struct {
	in      *input
	out     *output
	err     io.Writer
	path    string   // --config
	set     []string // --set key=value
	json    bool
	quiet   bool
	noColor bool
	flags   *pflag.FlagSet // of the command that runs, some of which are settings
	cfg     *config.Config // as loaded last; nil before
	shown   *progress      // made last; nil before
	warned  map[string]bool
	hangup  *hangup
}

// Main runs the program and returns its exit status. The first SIGINT or SIGTERM cancels the
// context, the second ends the process at once. SIGHUP, as a terminal sends it that is closed, cancels
// the context however often it comes, unless it is ignored, as under nohup.
func Main(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // back to the default for the second signal
	ctx, end := context.WithCancel(ctx)
	defer end()
	hangup := &hangup{do: end}
	defer hangup.watch()()
	// A reader of our output that goes away is an error of a write, not the end of what is under way.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	e := &env{in: &input{ctx: ctx, r: in}, out: &output{w: out}, err: errw, hangup: hangup}
	root := newRoot(e)
	root.SetArgs(args)
	err := e.out.verdict(root.ExecuteContext(ctx))
	if err != nil {
		e.printError(errw, err)
	}
	return exitStatus(err)
}

// hangup is what is done at every SIGHUP.
type hangup struct {
	mu sync.Mutex
	do func()
}

// set has something else done.
func (h *hangup) set(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do = do
}

func (h *hangup) call() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do()
}

// watch takes the signals until stop. Where they are ignored they stay so.
func (h *hangup) watch() (stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return func() {}
	}
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
				h.call()
			case <-over:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
	}
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "imgcluster",
		Short: "Store large images, encrypted and balanced, on a small cluster",
		Long: `imgcluster takes in large images on a cluster of machines with fixed addresses,
gives each to one node by a balanced hash to encrypt, stores them durably, and
gives them back. It carries its own stress test and report.

  imgcluster demo      see all of it in a minute, in a temporary folder
  imgcluster up        three nodes on this machine, until Ctrl-C

Exit status: 0 done, 1 failed, 2 usage or configuration, 3 no quorum or nobody
answers, 99 the report's verdict is a failure, 130 stopped by Ctrl-C, but 1 of a
stress, which reports on what it has done. Output that cannot be written is a
failure too; of one that nobody reads on, as with | head, nothing is said.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		e.flags = cmd.Flags()
		return emptyFiles(e.flags)
	}
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", term.Width)))
	f := root.PersistentFlags()
	f.StringVar(&e.path, "config", os.Getenv(config.EnvConfig), "configuration file (default imgcluster.yaml, else three nodes on loopback)")
	f.StringArrayVar(&e.set, "set", nil, "set one setting, as `key=value`; repeat for more (see config show)")
	f.BoolVar(&e.json, "json", false, "print JSON where there is something to say")
	f.BoolVar(&e.quiet, "quiet", false, "print no progress")
	f.BoolVar(&e.noColor, "no-color", false, "print no colours")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run a cluster:"}, &cobra.Group{ID: "use", Title: "Use it:"},
		&cobra.Group{ID: "test", Title: "Test it:"}, &cobra.Group{ID: "more", Title: "More:"})
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	group(root, "run", newDemo(e), newUp(e), newServer(e), newInit(e), newStatus(e), newVerify(e), newMember(e), newConfig(e))
	group(root, "use", newPut(e), newGet(e), newLs(e), newRm(e), newStat(e))
	group(root, "test", newGenerate(e), newStress(e), newReport(e), newClean(e))
	group(root, "more", newVersion(e))
	return root
}

func group(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// load reads the configuration with this command's flags.
func (e *env) load() (*config.Config, error) {
	cfg, err := e.settings()
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Unknown() {
		e.warn(w.String(), w.Hint)
	}
	return cfg, nil
}

// settings is load for commands that show the warnings themselves.
func (e *env) settings() (*config.Config, error) {
	cfg, err := config.Load(config.Options{Path: e.path, Flags: e.flags, Set: e.set, Env: os.Environ()})
	if err != nil {
		return nil, err
	}
	e.cfg = cfg
	return cfg, nil
}

// warn says once what may not be meant.
func (e *env) warn(text, hint string) {
	if e.warned == nil {
		e.warned = map[string]bool{}
	}
	if !e.warned[text] {
		e.warned[text] = true
		fmt.Fprintf(e.err, "imgcluster: warning: %s\nhint: %s\n", printable.Lines(text), printable.Lines(hint))
	}
}

// sameConfig is the end of a command line that has the configuration of this one.
func (e *env) sameConfig() string {
	line := ""
	if e.path != "" {
		line += " --config " + printable.Argument(e.path)
	}
	for _, s := range e.set {
		line += " --set " + printable.Argument(s)
	}
	return line
}

// client connects to the configuration's nodes, for a run that judges them.
func (e *env) client(cfg *config.Config, delivery client.Delivery) (*client.Client, error) {
	return client.New(e.clientOptions(cfg, delivery))
}

func (e *env) clientOptions(cfg *config.Config, delivery client.Delivery) client.Options {
	o := client.Options{
		Delivery: delivery, Attempts: cfg.Client.Attempts, BackoffMin: cfg.Client.BackoffMin, BackoffMax: cfg.Client.BackoffMax,
		DialTimeout: cfg.Client.Dial, ResponseTimeout: cfg.Client.Response,
		ReadTimeout: cfg.Client.Read, StragglerTimeout: cfg.Client.Straggler, StartHint: e.startHint(),
	}
	for _, n := range cfg.Cluster.Nodes {
		o.Nodes = append(o.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
	}
	return o
}

// readLimit is how long a command waits for the answer to a read, with all tries.
const readLimit = 30 * time.Second

// userClient is client for a command whose user waits for it: it says what it waits for.
func (e *env) userClient(cfg *config.Config) (*client.Client, error) {
	o := e.clientOptions(cfg, client.Broadcast)
	o.ReadLimit, o.Waiting = readLimit, e.sayWaiting
	return client.New(o)
}

// sayWaiting tells of a request that has no answer yet.
func (e *env) sayWaiting(w client.Wait) {
	text := fmt.Sprintf("still trying after %.0f s: %v", w.For.Seconds(), w.Err)
	if e.shown != nil {
		e.shown.note(text)
		return
	}
	e.say("%s", text)
}

// connect is load and userClient in one, for commands that only speak to a cluster. Close the client.
func (e *env) connect() (*config.Config, *client.Client, error) {
	cfg, err := e.load()
	if err != nil {
		return nil, nil, err
	}
	c, err := e.userClient(cfg)
	return cfg, c, err
}

// say prints progress and asides, which --quiet turns off.
func (e *env) say(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintln(e.err, printable.Lines(fmt.Sprintf(format, args...)))
	}
}

// color reports whether to colour what goes to w.
func (e *env) color(w io.Writer) bool {
	return !e.noColor && os.Getenv("NO_COLOR") == "" && term.IsScreen(fileOf(w))
}
