//go:build !windows

package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"imgcluster/cluster"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/modes/local"
)

func newServer(e *env) *cobra.Command {
	var id int
	var replace, untilInputEnds bool
	cmd := &cobra.Command{
		Use:   "server [--id N]",
		Short: "Run one node of the configuration",
		Long: `Run one node until SIGINT or SIGTERM: the one with this ID, or without --id the
one whose host is an address of this machine. The first signal hands the node's
leaders over and lets running uploads end, the second stops it at once. SIGHUP
has it read log.level and the certificate of tls.cert_file again. It tells
systemd when it serves, reloads and stops (Type=notify).

A node whose data directory is empty, an older copy or damaged is refused, since
what it once acknowledged is not there. With --replace it is rebuilt from its
peers: it joins as a new replica and copies its catalog and its images from the
other nodes, most of which must be up.`,
		Example: "  imgcluster server\n  imgcluster server --id 1\n  imgcluster server --id 3 --replace",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("id") {
				id = idUnknown
			}
			ctx := cmd.Context()
			if untilInputEnds {
				ctx = e.untilInputEnds(ctx)
			}
			return runServer(ctx, e, id, replace)
		},
	}
	cmd.Flags().IntVar(&id, "id", 0, "the node's ID in the configuration (default: of the node on this machine)")
	cmd.Flags().BoolVar(&replace, "replace", false,
		"replace what the data directory has lost by what the other nodes have")
	cmd.Flags().BoolVar(&untilInputEnds, untilInput, false, "stop when standard input ends")
	cmd.Flags().MarkHidden(untilInput) // for up and demo
	config.AddFlag(cmd.Flags(), "node.data_dir", "data-dir")
	config.AddFlag(cmd.Flags(), "node.listen", "listen")
	config.AddFlag(cmd.Flags(), "log.level", "log-level")
	return cmd
}

// untilInput is the flag of a server that ends with the process that started it.
const untilInput = "until-input-ends"

// untilInputEnds returns a context that ends with standard input too.
func (e *env) untilInputEnds(ctx context.Context) context.Context {
	ctx, end := context.WithCancel(ctx)
	go func() {
		defer end()
		io.Copy(io.Discard, e.in)
	}()
	return ctx
}

// idUnknown stands for the node that is on this machine.
const idUnknown = -1

func runServer(ctx context.Context, e *env, id int, replace bool) error {
	cfg, err := e.settings() // prints no warnings, which are logged below
	if err != nil {
		return err
	}
	if replace {
		cfg.Local.LostData = config.LostDataReplace
	}
	if id, err = e.ownID(ctx, cfg, id); err != nil {
		return err
	}
	logger, level, err := newLogger(cfg, image.NodeID(id), e.err)
	if err != nil {
		return err
	}
	defer logger.Sync()
	// A SIGHUP from a closed terminal or a rotation of logs is not meant to stop the node.
	r := &reloader{e: e, cfg: cfg, level: level, logger: logger}
	e.hangup.set(r.reload)
	for _, w := range cfg.Warnings() {
		logger.Warn(w.String(), zap.String("hint", w.Hint))
	}
	if err := crypto.TakeMasterKeyEnv(); err != nil {
		return err
	}
	cluster.LimitMemory(cfg)
	node, err := cluster.Start(ctx, cfg, image.NodeID(id), cluster.Process{
		Version: version(), Logger: logger, Level: level, Runs: newRuns(ctx, e, cfg),
	})
	if err != nil {
		return err
	}
	r.node.Store(node)
	tellSystemd(logger, daemon.SdNotifyReady)
	select {
	case <-ctx.Done():
		logger.Info("stopping")
	case err = <-node.Failed():
	}
	tellSystemd(logger, daemon.SdNotifyStopping)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown)
	defer cancel()
	return errors.Join(err, node.Close(stopping))
}

// ownID returns the ID of the node to run: the one that was given, or of the node on this machine.
func (e *env) ownID(ctx context.Context, cfg *config.Config, given int) (int, error) {
	if given == idUnknown {
		given = int(ownNode(ctx, cfg))
	}
	if given <= 0 || given > nodeIDMax {
		return 0, usagef("add --id with one of the configuration's node IDs: "+nodeIDs(cfg), "which node is this?")
	}
	return given, nil
}

// tellSystemd tells the service manager that started the process of a change, if one did.
func tellSystemd(logger *zap.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd is not told", zap.String("state", state), zap.Error(err))
	}
}

// reloader has a running node take what may change while it runs.
type reloader struct {
	e      *env
	cfg    *config.Config // that the node was started with
	level  zap.AtomicLevel
	node   atomic.Pointer[cluster.Node] // nil while it starts
	logger *zap.Logger
}

// reload reads the configuration again. One that is wrong changes nothing.
func (r *reloader) reload() {
	n := r.node.Load()
	if n != nil { // else ready would be said too early
		tellSystemd(r.logger, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
		defer tellSystemd(r.logger, daemon.SdNotifyReady)
	}
	cfg, err := r.e.settings()
	if err == nil {
		err = r.level.UnmarshalText([]byte(cfg.Log.Level))
	}
	if err != nil {
		r.logger.Error("the changed configuration is not used: the one before it is", zap.Error(err))
		return
	}
	if n != nil {
		n.Reload()
	}
	r.logger.Info("reloaded", zap.Stringer("level", r.level), zap.Strings("after_restart", r.changed(cfg)))
}

// changed returns the settings of a configuration that take effect when the node is started again.
func (r *reloader) changed(cfg *config.Config) (keys []string) {
	old := map[string]string{}
	for _, s := range r.cfg.Settings() {
		old[s.Key] = s.Value
	}
	for _, s := range cfg.Settings() {
		if s.Value != old[s.Key] && s.Key != "log.level" {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// startLocal starts all nodes of the configuration as processes of this program.
func (e *env) startLocal(ctx context.Context, cfg *config.Config) (*local.Cluster, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return local.Start(ctx, e.localOptions(cfg, program))
}

// localOptions returns options that give each node process the configuration of this command.
func (e *env) localOptions(cfg *config.Config, program string) local.Options {
	args := func(id int) []string {
		args := []string{"server", "--id", strconv.Itoa(id)}
		if local.UntilInputEnds {
			args = append(args, "--"+untilInput)
		}
		return append(args, e.configArgs()...)
	}
	return local.Options{Config: cfg, Program: program, Args: args, Same: e.sameConfig()}
}

// configArgs are the flags that give another process the configuration of this one.
func (e *env) configArgs() (args []string) {
	if e.path != "" {
		args = append(args, "--config", e.path)
	}
	for _, s := range e.set {
		args = append(args, "--set", s)
	}
	return args
}
