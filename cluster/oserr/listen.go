package oserr

import (
	"errors"
	"net"
	"syscall"
)

// Listener is how the address that a node listens on is configured. The zero value means that it is unknown.
type Listener struct {
	Setting     string // of its port, api_port or raft_port
	Listen      bool   // node.listen has its host
	ListenPorts bool   // node.listen has its ports
}

// Hint returns the next step for the user after the error of a listen, empty when err is not a known one.
func (l Listener) Hint(err error) string {
	dns := (*net.DNSError)(nil)
	switch {
	case errors.As(err, &dns) && l.Listen:
		return "the name does not resolve here: correct node.listen"
	case errors.As(err, &dns):
		return "the name does not resolve here: correct the node's host," +
			" add the name to the DNS or to /etc/hosts, or set node.listen to an address of this host"
	case errors.Is(err, syscall.EADDRINUSE):
		return l.taken()
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return l.foreign()
	case errors.Is(err, syscall.EACCES) && l.Setting != "":
		return "this user may not open the port: choose for " + l.Setting +
			" a number from 1024, or another port in node.listen"
	}
	return Hint(err, "")
}

// taken returns the hint for a port that another program listens on.
func (l Listener) taken() string {
	const who = "another program has this port: end it, or "
	switch {
	case l.ListenPorts:
		return who + "give another one in node.listen"
	case l.Setting == "":
		return who + "choose another one in every node's configuration before the node's first start"
	}
	return who + "change " + l.Setting + " of this node in every node's configuration before its first start"
}

// foreign returns the hint for an address that this host does not have.
func (l Listener) foreign() string {
	if l.Listen {
		return "this is not an address of this host: correct node.listen"
	}
	return "this is not an address of this host: check --id and the node's host in the configuration; " +
		"where NAT, a container or a cloud gives the host another one, set node.listen, such as 0.0.0.0"
}
