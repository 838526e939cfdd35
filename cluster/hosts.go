package cluster

import (
	"net"
	"os"
	"strings"

	"imgcluster/config"
)

// allowedHosts are the host names that a request may address this node by, besides IP addresses and
// localhost: the hosts of the configuration, node.host_names, and this host's own name, short and with .local
// too.
func allowedHosts(cfg *config.Config) map[string]bool {
	allowed := map[string]bool{}
	for _, n := range cfg.Cluster.Nodes {
		allowed[hostName(n.Host)] = true
	}
	for name := range strings.SplitSeq(cfg.Local.HostNames, ",") {
		allowed[hostName(name)] = true
	}
	if own, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(hostName(own), ".")
		allowed[hostName(own)], allowed[short], allowed[short+".local"] = true, true, true
	}
	delete(allowed, "")
	return allowed
}

// hostName is a name as it is compared: in lower case, without a dot at its end.
func hostName(s string) string { return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), ".")) }

// hosts knows the host names that requests may address the cluster by.
type hosts struct {
	names map[string]bool
	view  *view
}

// allowed reports whether a name is this node's or another member's.
func (h hosts) allowed(host string) bool {
	if h.names[host] {
		return true
	}
	for _, m := range h.view.membership().Members {
		if name, _, err := net.SplitHostPort(m.API); err == nil && hostName(name) == host {
			return true
		}
	}
	return false
}
