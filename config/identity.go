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

// Identity is what all nodes of a cluster must agree on for ever. Nodes send it to each other when
// they meet, and refuse a different one.
type Identity struct {
	Name       string `json:"name"`
	DataShards int    `json:"data_shards"`
	Nodes      []Node `json:"nodes"` // by ID, hosts in lower case
}

// Identity returns that of this configuration.
func (c *Config) Identity() Identity {
	return Identity{Name: c.Cluster.Name, DataShards: c.Cluster.DataShards, Nodes: c.Cluster.Nodes}.normal()
}

// normal returns a copy in which order and letter case say nothing.
func (i Identity) normal() Identity {
	i.Nodes = slices.Clone(i.Nodes)
	for n := range i.Nodes {
		i.Nodes[n].Host = strings.ToLower(i.Nodes[n].Host)
	}
	slices.SortStableFunc(i.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return i
}

// Fingerprint is the SHA-256 of the identity, in 64 hexadecimal digits: equal if and only if the
// identities are.
func (i Identity) Fingerprint() string {
	text, err := json.Marshal(i.normal())
	if err != nil {
		panic(err) // cannot be: only texts and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Fingerprint is that of the configuration's Identity.
func (c *Config) Fingerprint() string { return c.Identity().Fingerprint() }

// Difference says in words what another node's identity has differently, "" when nothing.
func (c *Config) Difference(other Identity) string {
	here, there := c.Identity(), other.normal()
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
