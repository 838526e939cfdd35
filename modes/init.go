package modes

import (
	"fmt"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
	"imgcluster/crypto"
)

func newInit(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the cluster's master key",
		Long: `Make the master key file of a new cluster, once and on one machine. Copy it to
the other machines, and keep a copy in a safe place: without it, no image can be
read. A cluster on loopback makes its own at the first start.`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error { return runInit(e) },
	}
}

func runInit(e *env) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	path := cfg.Local.MasterKeyFile
	key, err := crypto.CreateMasterKey(path)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]string{"file": path, "key_id": fmt.Sprint(key.ID())})
	}
	_, err = fmt.Fprintf(printable.Writer(e.out), "%s: master key %s\n"+
		"Copy it to the same place on every node, readable by its user alone.\n", path, key.ID())
	return err
}
