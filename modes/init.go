//go:build !windows

package modes

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/modes/term"
)

type initOptions struct {
	hosts             []string
	apiPort, raftPort int
}

func newInit(e *env) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init [HOST...]",
		Short: "Make the configuration and the keys of a new cluster",
		Long: `Make what a new cluster needs, once and on one machine: imgcluster.yaml with a
node on each host, the master key, and ca.crt, by which clients know the nodes.
Without hosts it reads the configuration that is there, and makes the rest.
Nothing is overwritten: run again, it makes what is missing and says what is
there. It prints what to copy to the other machines, and the next commands.

Keep a copy of the master key in a safe place: without it, no image can be read.
Whoever can read it is the cluster's administrator. ca.crt is public, and made
from the master key. A cluster on loopback needs none of this: imgcluster up.`,
		Example: "  imgcluster init 10.40.45.206 10.40.33.244 10.40.53.40",
		Args:    args(0, anyNumber),
		RunE: func(cmd *cobra.Command, hosts []string) error {
			o.hosts = hosts
			return runInit(cmd.Context(), e, o)
		},
	}
	config.AddFlag(cmd.Flags(), "cluster.name", "name")
	config.AddFlag(cmd.Flags(), "cluster.replicas", "replicas")
	cmd.Flags().IntVar(&o.apiPort, "api-port", 8001, "port of the nodes' HTTP API")
	cmd.Flags().IntVar(&o.raftPort, "raft-port", 9001, "port of the nodes' Raft transport")
	return cmd
}

// newCluster is what init has found, and what it has to make.
type newCluster struct {
	cfg       *config.Config
	path      string            // of the configuration
	text      []byte            // of the configuration to make; nil: it is there, or in the environment
	master    *crypto.MasterKey // nil: to be made
	keyFile   string            // of the master key; empty: it is in the environment or comes from a command
	authority *access.Authority
	ca        string // the path of ca.crt; empty: clients need none, or one of their own
	caThere   bool
	made      []string // paths
}

// runInit looks at everything before it makes anything.
func runInit(ctx context.Context, e *env, o initOptions) error {
	n := newCluster{path: cmp.Or(e.path, config.DefaultPath)}
	err := n.configure(e, o)
	if err == nil {
		err = n.findKey(ctx)
	}
	if err == nil {
		err = n.findCA()
	}
	if err == nil {
		err = n.make()
	}
	if err != nil {
		return err
	}
	return n.report(ctx, e)
}

// configure reads the configuration that is there, or drafts one for the hosts.
func (n *newCluster) configure(e *env, o initOptions) error {
	_, err := os.Lstat(n.path)
	there := err == nil
	if !there && !errors.Is(err, fs.ErrNotExist) {
		return &hintedError{fmt.Errorf("%s: %w", n.path, oserr.NoPath(err)), "give another path with --config"}
	}
	if len(o.hosts) == 0 {
		return n.configured(e, there)
	}
	draft, err := e.draft(o)
	if err != nil {
		return err
	}
	if !there {
		draft.File = n.path
		n.cfg = draft
		n.text, err = draft.Draft()
		return err
	}
	if n.cfg, err = config.Load(config.Options{Path: e.path, Env: os.Environ()}); err != nil {
		return err
	}
	different := n.cfg.Agreement().Difference(draft.Agreement())
	if have, want := n.cfg.Cluster.Replicas, draft.Cluster.Replicas; different == "" && have != want {
		different = fmt.Sprintf("replicas is %d here and %d there", have, want)
	}
	if different != "" {
		return usagef("leave the hosts and flags out to use the file as it is, edit it, "+
			"or name another one with --config", "%s exists, and is not what the command line says (there): %s",
			n.path, different)
	}
	return nil
}

// configured is configure without hosts.
func (n *newCluster) configured(e *env, there bool) (err error) {
	for _, name := range []string{"name", "replicas", "api-port", "raft-port"} {
		if e.flags.Changed(name) {
			return usagef("give the hosts too, or edit "+n.path, "--%s is for a new configuration", name)
		}
	}
	if there {
		n.cfg, err = e.load()
		return err
	}
	// Nodes may also come from the environment or --set.
	n.cfg, err = config.Load(config.Options{NoFile: true, Set: e.set, Env: os.Environ()})
	if err == nil && !slices.ContainsFunc(n.cfg.Settings(),
		func(s config.Setting) bool { return s.Key == "cluster.nodes" && s.Origin != "default" }) {
		err = usagef("name one host a node: imgcluster init 10.40.45.206 10.40.33.244 10.40.53.40; "+
			"for a cluster on this machine alone: imgcluster up", "there is no %s, and no host is named", n.path)
	}
	return err
}

// draft returns a configuration with a node on each host. On a host that is named again the ports count on.
func (e *env) draft(o initOptions) (*config.Config, error) {
	var nodes []string
	uses := map[string]int{}
	for i, host := range o.hosts {
		host = config.Host(host)
		at := config.Node{
			ID: image.NodeID(i + 1), Host: host,
			APIPort: o.apiPort + uses[host], RaftPort: o.raftPort + uses[host],
		}
		uses[host]++
		nodes = append(nodes, fmt.Sprintf("%d=%s:%d", at.ID, at.APIAddr(), at.RaftPort))
	}
	set := append(slices.Clip(e.set), "cluster.nodes="+strings.Join(nodes, ","))
	if len(nodes) == 1 && !e.flags.Changed("replicas") {
		set = append(set, "cluster.replicas=1")
	}
	return config.Load(config.Options{NoFile: true, Flags: e.flags, Set: set, Env: os.Environ()})
}

// findKey reads the master key, if there is one. One that is lost is not replaced.
func (n *newCluster) findKey(ctx context.Context) error {
	source := keySource(n.cfg)
	source.File = filepath.Clean(source.File)
	if os.Getenv(crypto.MasterKeyEnv) == "" && source.Command == "" {
		n.keyFile = source.File
	}
	keys, err := source.Load(ctx)
	if err == nil {
		n.master = keys.Own
		n.authority, err = access.NewAuthority(n.master, n.cfg.Cluster.Name)
	}
	if !errors.Is(err, crypto.ErrKeyMissing) {
		return err
	}
	for _, node := range n.cfg.Cluster.Nodes {
		if dir := n.cfg.DataDir(node.ID); bootstrap.Claimed(dir) {
			return usagef("copy the master key from another node or from your backup to "+source.File+
				", with mode 0400; for a new cluster, name another node.data_dir",
				"the master key of the cluster whose data is in %s is missing", dir)
		}
	}
	return nil
}

// findCA compares ca.crt, where clients need it and it is there, with the master key.
func (n *newCluster) findCA() error {
	if n.ca = n.cfg.OwnCAFile(); n.ca == "" || !n.cfg.Secured() {
		n.ca = ""
		return nil
	}
	text, err := readBounded(n.ca, caBytesMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &hintedError{fmt.Errorf("%s: %w", n.ca, oserr.NoPath(err)), "make it readable, or remove it"}
	case n.master == nil:
		return usagef("copy its master key to "+n.keyFile+", with mode 0400; for a new cluster, remove "+n.ca,
			"there is %s, of a cluster whose master key is not here", n.ca)
	case !bytes.Contains(text, n.authority.CertificatePEM()):
		return usagef("remove it if it is of another cluster, and run this again; else use its master key, "+
			"and the cluster.name that it was made with", "%s does not belong to the master key %s and the name %s",
			n.ca, n.master.ID(), n.cfg.Cluster.Name)
	}
	n.caThere = true
	return nil
}

// make makes what is missing, the configuration last.
func (n *newCluster) make() (err error) {
	if dir := filepath.Dir(n.path); n.text != nil {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usagef("make the folder, or give another path with --config", "there is no folder %s", dir)
		}
	}
	if n.master == nil {
		if n.master, err = crypto.CreateMasterKey(n.keyFile); err != nil {
			return err
		}
		n.made = append(n.made, n.keyFile)
		if n.authority, err = access.NewAuthority(n.master, n.cfg.Cluster.Name); err != nil {
			return err
		}
	}
	if n.ca != "" && !n.caThere {
		if err := writePublic(n.ca, n.authority.CertificatePEM()); err != nil {
			return err
		}
		n.made = append(n.made, n.ca)
	}
	if n.text != nil {
		if err := writePublic(n.path, n.text); err != nil {
			return err
		}
		n.made = append(n.made, n.path)
	}
	return nil
}

// initDocument is the JSON of init.
type initDocument struct {
	Config    string   `json:"config"`     // empty: the environment has the nodes
	MasterKey string   `json:"master_key"` // empty: it is in the environment or comes from a command
	KeyID     string   `json:"key_id"`
	CA        string   `json:"ca"` // empty: plain HTTP, or a certificate of another authority
	Made      []string `json:"made"`
	Copy      []string `json:"copy"` // to every other machine
	Secured   bool     `json:"secured"`
}

func (n *newCluster) report(ctx context.Context, e *env) error {
	e.cfg = n.cfg
	for _, w := range n.cfg.Warnings() {
		e.warn(w.String(), w.Hint)
	}
	files := n.files()
	if e.json {
		return e.printJSON(initDocument{
			Config: n.configFile(), MasterKey: n.keyFile, KeyID: n.master.ID(), CA: n.ca,
			Made: append([]string{}, n.made...), Copy: append([]string{}, files...), Secured: n.cfg.Secured(),
		})
	}
	var out strings.Builder
	n.list(&out, n.configFile(), fmt.Sprintf("%s, %s of each image",
		term.Plural(len(n.cfg.Cluster.Nodes), "node"), term.Plural(n.cfg.Cluster.Replicas, "copy")))
	n.list(&out, cmp.Or(n.keyFile, "(no file)"), "master key "+n.master.ID()+": keep a copy in a safe place")
	if n.ca != "" {
		n.list(&out, n.ca, "public, for every machine that uses the cluster")
	}
	n.next(ctx, e, &out, files)
	_, err := printable.Writer(e.out).Write([]byte(out.String()))
	return err
}

func (n *newCluster) configFile() string {
	if n.text == nil && n.cfg.File == "" {
		return ""
	}
	return n.path
}

// list adds a line about a file.
func (n *newCluster) list(out *strings.Builder, path, what string) {
	if path == "" {
		return
	}
	state := "there"
	if slices.Contains(n.made, path) {
		state = "made"
	}
	fmt.Fprintf(out, "%-5s  %s  %s\n", state, path, what)
}

// files are those to copy to the other machines.
func (n *newCluster) files() []string {
	return slices.DeleteFunc([]string{n.configFile(), n.keyFile, n.ca}, func(s string) bool { return s == "" })
}

// next adds the next steps: what to copy where, and how to start the nodes.
func (n *newCluster) next(ctx context.Context, e *env, out *strings.Builder, files []string) {
	same := e.sameConfig()
	if n.text != nil && e.path == "" { // the file has what was set
		same = ""
	} else if n.text != nil {
		same = " --config " + printable.Argument(e.path)
	}
	if n.cfg.OneHost() {
		fmt.Fprintf(out, "\nStart  imgcluster up%s\n", same)
		return
	}
	var hosts []string
	own := true // every node's own machine knows which one it is
	for _, node := range n.cfg.Cluster.Nodes {
		if slices.Contains(hosts, node.Host) {
			own = false
			continue
		}
		hosts = append(hosts, node.Host)
	}
	others := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return isOwn(ctx, n.cfg, h) })
	server := "imgcluster server" + same
	if !own {
		server = "imgcluster server --id N" + same
	}
	if copying := copyCommand(files, others); copying != "" && own && !strings.Contains(server, "'") {
		fmt.Fprintf(out, "\nCopy   %s\n", copying)
		fmt.Fprintf(out, "Start  for h in %s; do ssh $h 'nohup %s >>imgcluster.log 2>&1 &'; done\n",
			strings.Join(hosts, " "), server)
		fmt.Fprintf(out, "       or on each machine: %s\n", server)
	} else {
		fmt.Fprintf(out, "\nCopy   to the same paths on %s: %s\n", strings.Join(others, ", "),
			strings.Join(files, ", "))
		fmt.Fprintf(out, "Start  on each machine: %s\n", server)
	}
	fmt.Fprintf(out, "Use    imgcluster status%s\n", same)
}

// copyCommand returns one command line that copies files of the working directory to the same places in the
// home folders of other hosts. It is empty where that is not so simple.
func copyCommand(files, hosts []string) string {
	var names []string
	for _, file := range files {
		first, rest, _ := strings.Cut(filepath.Clean(file), "/")
		if first == "" || first == ".." || strings.Contains(rest, "/") {
			return ""
		}
		names = append(names, printable.Argument(first)) // of the key, its folder
	}
	for _, h := range hosts {
		if strings.Contains(h, ":") {
			return "" // an IPv6 address is written in another way by each command
		}
	}
	if len(hosts) == 0 || len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("for h in %s; do scp -rp %s $h:; done", strings.Join(hosts, " "),
		strings.Join(names, " "))
}
