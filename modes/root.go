// Package modes is the command line. Each command has a file with its options, the wiring of the packages
// below, and the messages to the user. Its runX function does the work and can be tested without cobra.
package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/modes/term"
)

// env is what every command gets: the standard streams and the options of all commands.
type env struct {
	ctx     context.Context // of the command
	in      *input
	out     *output
	err     io.Writer
	path    string   // --config
	set     []string // --set key=value
	json    bool
	quiet   bool
	noColor bool
	flags   *pflag.FlagSet // of the command; some are settings
	cfg     *config.Config // loaded last; nil before
	shown   *progress      // created last; nil before
	warned  map[string]bool
	masters map[crypto.KeySource]crypto.MasterKeys // that masterKeys has read
	hangup  *hangup
}

// Main runs the program and returns its exit status. The first SIGINT or SIGTERM cancels the context, the
// second ends the process at once. SIGHUP, which a closed terminal sends, cancels the context each time
// it comes, unless it is ignored, as under nohup.
func Main(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // back to the default for the second signal
	ctx, end := context.WithCancel(ctx)
	defer end()
	hangup := &hangup{do: end}
	defer hangup.watch()()
	// A closed reader of the output is an error of a write. It does not end the process.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	if err := forbidCoreFiles(); err != nil {
		fmt.Fprintln(errw, err)
		return exitStatus(err)
	}
	e := &env{ctx: ctx, in: &input{ctx: ctx, r: in}, out: &output{w: out}, err: errw, hangup: hangup}
	root := newRoot(e)
	root.SetArgs(args)
	err := e.out.join(root.ExecuteContext(ctx))
	if err != nil {
		e.printError(errw, err)
	}
	return exitStatus(err)
}

// hangup calls a function at every SIGHUP.
type hangup struct {
	mu sync.Mutex
	do func()
}

// set replaces the function.
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

// watch receives the signals until stop is called. A process that ignores them keeps ignoring them.
func (h *hangup) watch() (stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return func() {}
	}
	signals := make(chan os.Signal, 1)
	stopped := make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
				h.call()
			case <-stopped:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(stopped)
	}
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "imgcluster",
		Short: "Store large images, encrypted and balanced, on a small cluster",
		Long: `imgcluster takes in large images on a cluster of machines with fixed addresses,
gives each to one node by a balanced hash to encrypt, stores them durably, and
gives them back. It carries its own stress test and report.

Output that cannot be written is a failure; when its reader ends early, as with
| head, nothing is said.` + nodesHere,
		Example:      examplesHere + "  imgcluster put --user alice photo.png\n  imgcluster ls alice",
		SilenceUsage: true, SilenceErrors: true,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		e.flags = cmd.Flags()
		return checkFileNames(e.flags)
	}
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(flagError)
	setHelp(root)
	f := root.PersistentFlags()
	f.StringVar(&e.path, "config", os.Getenv(config.EnvConfig),
		"configuration file (default imgcluster.yaml, else three nodes on loopback)")
	f.StringArrayVar(&e.set, "set", nil, "set one setting, as `key=value`; repeat for more (see config show)")
	f.BoolVar(&e.json, "json", false, "print JSON where there is something to say")
	f.BoolVar(&e.quiet, "quiet", false, "print no progress")
	f.BoolVar(&e.noColor, "no-color", false, "print no colours")
	root.SetHelpCommandGroupID("more")
	addGroup(root, "run", "Run a cluster:", append(nodeCommands(e), newStatus(e), newVerify(e), newMember(e),
		newUser(e), newKey(e), newKeys(e), newLogLevel(e), newConfig(e), newBackup(e))...)
	addGroup(root, "use", "Use it:", newPut(e), newGet(e), newLs(e), newRm(e), newStat(e), newExport(e),
		newImport(e), newDecrypt(e))
	addGroup(root, "test", "Test it:", newGenerate(e), newStress(e), newReport(e), newClean(e))
	addGroup(root, "more", "More:", newVersion(e), newMan(e), newCompletion(e))
	addHelp(root)
	completeAll(e, root)
	return root
}

func addGroup(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
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

// settings is load without the warnings, for commands that show them otherwise.
func (e *env) settings() (*config.Config, error) {
	cfg, err := config.Load(config.Options{Path: e.path, Flags: e.flags, Set: e.set, Env: os.Environ()})
	if err != nil {
		return nil, err
	}
	e.cfg = cfg
	return cfg, nil
}

// warn prints a warning, each only once.
func (e *env) warn(text, hint string) {
	if e.warned == nil {
		e.warned = map[string]bool{}
	}
	if !e.warned[text] {
		e.warned[text] = true
		fmt.Fprintf(e.err, "imgcluster: warning: %s\nhint: %s\n", printable.Lines(text), printable.Lines(hint))
	}
}

// sameConfig returns the options that give another command the same configuration.
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

// client returns a client of the configuration's nodes, for a run that measures them.
func (e *env) client(cfg *config.Config, delivery client.Delivery) (*client.Client, error) {
	o, err := e.clientOptions(cfg, delivery)
	if err != nil {
		return nil, err
	}
	return client.New(o)
}

func (e *env) clientOptions(cfg *config.Config, delivery client.Delivery) (client.Options, error) {
	o := client.Options{
		Delivery:         delivery,
		Attempts:         cfg.Client.Attempts,
		BackoffMin:       cfg.Client.BackoffMin,
		BackoffMax:       cfg.Client.BackoffMax,
		DialTimeout:      cfg.Client.Dial,
		ResponseTimeout:  cfg.Client.Response,
		ReadTimeout:      cfg.Client.Read,
		StragglerTimeout: cfg.Client.Straggler,
		StartHint:        e.startHint(),
	}
	for _, n := range cfg.Cluster.Nodes {
		o.Nodes = append(o.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
	}
	err := e.authenticate(cfg, &o)
	return o, err
}

// readLimit is how long a command waits for the answer to a read, with all retries.
const readLimit = 30 * time.Second

// userClient returns a client for a command whose user waits for it: the command says what it waits for.
func (e *env) userClient(cfg *config.Config, delivery client.Delivery) (*client.Client, error) {
	o, err := e.clientOptions(cfg, delivery)
	if err != nil {
		return nil, err
	}
	o.ReadLimit = readLimit
	o.Waiting = e.sayWaiting
	return client.New(o)
}

// sayWaiting reports a request that has no answer yet.
func (e *env) sayWaiting(w client.Wait) {
	text := fmt.Sprintf("still trying after %.0f s: %v", w.For.Seconds(), w.Err)
	if e.shown != nil {
		e.shown.note(text)
		return
	}
	e.say("%s", text)
}

// connect is load and userClient in one. The caller closes the client.
func (e *env) connect() (*config.Config, *client.Client, error) {
	cfg, err := e.load()
	if err != nil {
		return nil, nil, err
	}
	c, err := e.userClient(cfg, client.Broadcast)
	return cfg, c, err
}

// say prints progress and notes, which --quiet turns off.
func (e *env) say(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintln(e.err, printable.Lines(fmt.Sprintf(format, args...)))
	}
}

// color reports whether output to w is coloured.
func (e *env) color(w io.Writer) bool {
	return !e.noColor && os.Getenv("NO_COLOR") == "" && term.IsScreen(fileOf(w))
}

func nodeIDs(cfg *config.Config) string {
	var ids []image.NodeID
	for _, n := range cfg.Cluster.Nodes {
		ids = append(ids, n.ID)
	}
	return term.List(ids)
}
