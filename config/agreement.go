package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"imgcluster/cluster/image"
)

// Agreement is what all nodes of a cluster must agree on when they bootstrap it. Nodes send it to each other
// before they run together, and refuse a different one.
type Agreement struct {
	Name       string `json:"name"`
	DataShards int    `json:"data_shards"`
	Nodes      []Node `json:"nodes"` // by ID, hosts in lower case
}

// Agreement returns that of this configuration.
func (c *Config) Agreement() Agreement {
	return Agreement{Name: c.Cluster.Name, DataShards: c.Cluster.DataShards, Nodes: c.Cluster.Nodes}.normal()
}

// normal returns a copy in which order and letter case say nothing.
func (a Agreement) normal() Agreement {
	a.Nodes = slices.Clone(a.Nodes)
	for i := range a.Nodes {
		a.Nodes[i].Host = strings.ToLower(a.Nodes[i].Host)
	}
	slices.SortStableFunc(a.Nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	return a
}

// Fingerprint is the SHA-256 of the agreement, in 64 hexadecimal digits: equal if and only if the
// agreements are.
func (a Agreement) Fingerprint() string {
	text, err := json.Marshal(a.normal())
	if err != nil {
		panic(err) // cannot be: only texts and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Difference describes what another node's agreement has differently, "" when nothing.
func (a Agreement) Difference(other Agreement) string {
	here := a.normal()
	there := other.normal()
	var list []string
	if here.Name != there.Name {
		list = append(list,
			fmt.Sprintf("cluster name is %s here and %s there", quote(here.Name), quote(there.Name)))
	}
	if here.DataShards != there.DataShards {
		list = append(list,
			fmt.Sprintf("data_shards is %d here and %d there", here.DataShards, there.DataShards))
	}
	list = append(list, differentNodes(here.Nodes, there.Nodes)...)
	return strings.Join(list, "; ")
}

// differenceMax bounds how many nodes are named: the other list comes from the network.
const differenceMax = 2 * nodesMax

func differentNodes(here, there []Node) []string {
	var list []string
	others := map[image.NodeID]Node{}
	for _, n := range there {
		others[n.ID] = n
	}
	for _, n := range here {
		o, ok := others[n.ID]
		switch {
		case !ok:
			list = append(list, fmt.Sprintf("node %d is only here", n.ID))
		case o != n:
			list = append(list, fmt.Sprintf("node %d is %s here and %s there", n.ID, n.words(), o.words()))
		}
		delete(others, n.ID)
	}
	for _, n := range there {
		if _, ok := others[n.ID]; ok && len(list) < differenceMax {
			list = append(list, fmt.Sprintf("node %d is only there", n.ID))
		}
	}
	if len(list) == 0 && len(here) != len(there) {
		list = append(list, "a node is listed twice there")
	}
	return list
}

func (n Node) words() string { return fmt.Sprintf("%s (Raft port %d)", plain(n.APIAddr()), n.RaftPort) }
