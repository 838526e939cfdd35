// Package config holds every setting of the system: its type, default, range and description, in one
// place, the struct tags below. Load merges flags, environment, file and defaults (in this order
// of precedence), refuses what cannot work, and lists all problems at once, with line numbers.
//
// Everything else receives a checked *Config and never looks at files, flags or the environment.
package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// Config is the whole configuration. The one that Load and Default return is valid; after a change by hand,
// Check returns its problems. It is not modified once nodes use it, so sharing it is safe.
//
// Tags: yaml is the key; default, min and max are in the setting's text form; oneof lists the
// allowed texts; help is the description that users see.
type Config struct {
	Cluster  Cluster  `yaml:"cluster"`
	Local    Local    `yaml:"node"` // what each node has for itself
	Limits   Limits   `yaml:"limits"`
	Timeouts Timeouts `yaml:"timeouts"`
	Repair   Repair   `yaml:"repair"`
	Raft     Raft     `yaml:"raft"`
	Client   Client   `yaml:"client"`
	Security Security `yaml:"security"`
	TLS      TLS      `yaml:"tls"`
	Report   Report   `yaml:"report"`
	Log      Log      `yaml:"log"`
	Tracing  Tracing  `yaml:"tracing"`

	File   string           `yaml:"-"` // the file that was read; empty when there was none
	places map[string]place // where each setting that is no default was set

	unknown Problems // variables of the environment that are no settings
}

// Cluster is what all nodes must agree on.
type Cluster struct {
	Name        string `yaml:"name" default:"imgcluster" help:"name of the cluster; nodes of another name are refused; fixed once data exists"`
	DataShards  int    `yaml:"data_shards" default:"12" min:"1" max:"256" help:"Raft groups that share the images' records; fixed once data exists"`
	Replicas    int    `yaml:"replicas" default:"2" min:"1" help:"durable copies of each image, on different nodes, before an upload is acknowledged"`
	MinReplicas int    `yaml:"min_replicas" default:"1" min:"1" help:"copies that are enough while too few nodes are up; the rest is made when they return"`
	Nodes       []Node `yaml:"nodes" default:"1=127.0.0.1:8001:9001,2=127.0.0.1:8002:9002,3=127.0.0.1:8003:9003" help:"the nodes and their fixed addresses; as one text, with commas between them: id=host:api_port:raft_port"`
}

// Node is one node of the cluster and its fixed addresses.
type Node struct {
	ID       image.NodeID `yaml:"id" json:"id" min:"1" max:"4294967295" help:"number of the node, never used again for another one"`
	Host     string       `yaml:"host" json:"host" help:"IP address or host name that every node and client reaches it by, whatever it listens on"`
	APIPort  int          `yaml:"api_port" json:"api_port" min:"1" max:"65535" help:"TCP port of the HTTP API"`
	RaftPort int          `yaml:"raft_port" json:"raft_port" min:"1" max:"65535" help:"port of the other nodes, with mutual TLS: Raft and image bytes; TCP, and UDP where packets are lost"`
}

// Local is what a node has on its host. Relative paths start at the working directory.
type Local struct {
	Listen           string `yaml:"listen" default:"host" help:"address to listen on where it is not the node's host (NAT, containers, cloud): ADDRESS or ADDRESS:API_PORT:RAFT_PORT, 0.0.0.0 for all; host: what cluster.nodes says"`
	DataDir          string `yaml:"data_dir" default:"./imgcluster-data/node{id}" help:"folder of a node's log, catalog and images; {id} stands for the node's ID"`
	MasterKeyFile    string `yaml:"master_key_file" default:"./imgcluster-keys/master.key" help:"file of the cluster's master key, outside every data_dir"`
	MasterKeyCommand string `yaml:"master_key_command" default:"none" help:"program that prints the line of a master key file, in place of master_key_file: the door to a key management service or an encrypted file; run at each start without a shell, its words parted by spaces (for quotes, variables or pipes, name a script), for at most 30s; none: there is none"`
	HostNames        string `yaml:"host_names" default:"localhost" help:"names, with commas between them, by which clients reach a node beside its host, such as DNS aliases; a request under another name changes nothing"`
	LostData         string `yaml:"lost_data" default:"refuse" oneof:"refuse,replace" help:"what a node does that starts with an empty, older or damaged data_dir: refuse, or replace it by what the others have"`
}

// keyCommandNone is the value of node.master_key_command that stands for no command.
const keyCommandNone = "none"

// KeyCommand returns the command that prints the master key, empty where there is none.
func (c *Config) KeyCommand() string {
	if c.Local.MasterKeyCommand == keyCommandNone {
		return ""
	}
	return c.Local.MasterKeyCommand
}

// LostDataReplace is the value of node.lost_data that lets a node start without the data it had.
const LostDataReplace = "replace"

// Limits bounds what a node holds or accepts.
type Limits struct {
	ImageBytes            Bytes `yaml:"image_bytes" default:"64MiB" min:"1" max:"4GiB" help:"largest image that is accepted"`
	Uploads               int   `yaml:"uploads" default:"64" min:"1" max:"65536" help:"uploads in progress at once on one node; more are told to retry"`
	KeyUploads            int   `yaml:"key_uploads" default:"48" min:"1" max:"65536" help:"of these, of one access key, or of one address where there are no keys"`
	FirstBytes            Bytes `yaml:"first_bytes" default:"32KiB" min:"1" max:"256KiB" help:"bytes of an upload, or all of a smaller one, that must have come before it takes one of these places, memory for images and an entry in the log"`
	UploadBytes           Bytes `yaml:"upload_bytes" default:"2GiB" min:"1" max:"1PiB" help:"bytes of all uploads in progress at once on one node, by their Content-Length; more are told to retry"`
	Reads                 int   `yaml:"reads" default:"512" min:"1" max:"65536" help:"images that one node sends to clients at once; more wait, then are told to retry"`
	KeyReads              int   `yaml:"key_reads" default:"384" min:"1" max:"65536" help:"of these, to one access key, or to one address where there are no keys"`
	StagingBytes          Bytes `yaml:"staging_bytes" default:"256MiB" min:"1" max:"1TiB" help:"image bytes that one node holds in memory for uploads in progress"`
	MemoryBytes           Bytes `yaml:"memory_bytes" default:"448MiB" min:"16MiB" max:"4TiB" help:"soft limit of a node's memory, given to the Go runtime"`
	ListPage              int   `yaml:"list_page" default:"2500" min:"1" max:"10000" help:"most images in one page of a list; one of long names ends before"`
	Connections           int   `yaml:"connections" default:"1024" min:"4" max:"1048576" help:"open API connections on one node"`
	ConnectionsPerAddress int   `yaml:"connections_per_address" default:"512" min:"1" max:"1048576" help:"of these, of one IPv4 address or IPv6 network of 64 bits"`
	HeaderBytes           Bytes `yaml:"header_bytes" default:"16KiB" min:"4KiB" max:"1MiB" help:"largest header of an HTTP request"`
	BodyRate              Bytes `yaml:"body_rate" default:"16KiB" min:"1" max:"1GiB" help:"bytes a second that a client must send or take a body at, on average; slower ones are cut"`
	BusyRate              Bytes `yaml:"busy_rate" default:"256KiB" min:"1" max:"1GiB" help:"bytes a second that an upload or read must move at, on average, to keep its place while others wait for one"`
	StatusStreams         int   `yaml:"status_streams" default:"16" min:"1" max:"65536" help:"streams of a node's status to one address: to the nodes of one host"`
	DiskFreeBytes         Bytes `yaml:"disk_free_bytes" default:"1GiB" min:"0" max:"1PiB" help:"disk space that uploads leave free, for the log of Raft: a node ends when its log finds the disk full"`
	DiskFreeInodes        int   `yaml:"disk_free_inodes" default:"1000" min:"0" max:"1000000000" help:"files that uploads leave room for (free inodes), for the log of Raft, where the file system has a fixed number of them"`
}

// Timeouts holds every wait of a node, and the periods of its regular work.
type Timeouts struct {
	Header          time.Duration `yaml:"header" default:"5s" help:"to receive the header of a request"`
	BodyIdle        time.Duration `yaml:"body_idle" default:"15s" help:"without a byte before a body counts as incomplete"`
	BodyGrace       time.Duration `yaml:"body_grace" default:"30s" help:"that a body may fall behind limits.body_rate by; what is faster makes up for it"`
	BusyGrace       time.Duration `yaml:"busy_grace" default:"1s" help:"that a body may fall behind limits.busy_rate by"`
	Idle            time.Duration `yaml:"idle" default:"1m30s" help:"to keep an unused API connection open"`
	Report          time.Duration `yaml:"report" default:"300ms" help:"until a node reports an upload again that it has heard nothing of"`
	Takeover        time.Duration `yaml:"takeover" default:"3s" help:"without progress, or after the body's end, before a storing node loses the upload to another"`
	Upload          time.Duration `yaml:"upload" default:"2m" help:"for an upload without progress, and from the end of its body to its receipt; how long the body takes is limits.body_rate's"`
	ProposalAttempt time.Duration `yaml:"proposal_attempt" default:"400ms" help:"for one attempt of a Raft proposal"`
	Proposal        time.Duration `yaml:"proposal" default:"10s" help:"for a Raft proposal with all its attempts"`
	Read            time.Duration `yaml:"read" default:"5s" help:"for a linearizable read of the catalog, and for the next bytes of a copy on another node"`
	Shutdown        time.Duration `yaml:"shutdown" default:"10s" help:"for a stopping node to finish what is in progress"`
	Start           time.Duration `yaml:"start" default:"1m" help:"for a starting node to become ready"`
	PeerInterval    time.Duration `yaml:"peer_interval" default:"500ms" help:"between two exchanges of state with another node"`
	PeerSilence     time.Duration `yaml:"peer_silence" default:"1.5s" help:"without an answer before a node counts as down"`
	DiskRetry       time.Duration `yaml:"disk_retry" default:"10s" help:"between two tries of a disk that failed to make something durable"`
	Sweep           time.Duration `yaml:"sweep" default:"1h" help:"between two sweeps for files that no record needs"`
}

// Repair says how images get copies back that were lost, and how stored ones are checked.
type Repair struct {
	Every      time.Duration `yaml:"every" default:"10s" help:"between two looks for images with too few copies"`
	Delay      time.Duration `yaml:"delay" default:"10m" help:"for a node to be down before its copies are rebuilt on others"`
	Rate       Bytes         `yaml:"rate" default:"64MiB" min:"1KiB" max:"1TiB" help:"bytes a second that one node copies to repair"`
	ScrubEvery time.Duration `yaml:"scrub_every" default:"168h" help:"between two starts of a check of every copy on a node"`
	ScrubRate  Bytes         `yaml:"scrub_rate" default:"16MiB" min:"1KiB" max:"1TiB" help:"bytes a second that such a check reads"`
}

// Raft tunes consensus. RTT is the unit that elections and heartbeats count in.
type Raft struct {
	RTT                time.Duration `yaml:"rtt" default:"100ms" min:"1ms" max:"10s" help:"tick of Raft, in whole milliseconds; above the round trip between nodes, 20ms at least on busy hosts"`
	ElectionRTT        int           `yaml:"election_rtt" default:"5" min:"3" max:"1000" help:"ticks without a leader before an election"`
	HeartbeatRTT       int           `yaml:"heartbeat_rtt" default:"1" min:"1" max:"100" help:"ticks between two heartbeats of a leader"`
	SnapshotEntries    int           `yaml:"snapshot_entries" default:"20000" min:"1" max:"100000000" help:"log entries between two snapshots of a shard"`
	CompactionOverhead int           `yaml:"compaction_overhead" default:"10000" min:"1" max:"100000000" help:"log entries kept behind a snapshot for nodes that lag"`
	Rebalance          time.Duration `yaml:"rebalance" default:"1s" help:"between two looks at whether leaders are spread evenly"`
}

// Client tunes the client side: put, get and the stress run.
type Client struct {
	Attempts   int           `yaml:"attempts" default:"6" min:"1" max:"1000" help:"attempts of one request, the first included"`
	BackoffMin time.Duration `yaml:"backoff_min" default:"100ms" help:"wait before the second attempt; doubles from there"`
	BackoffMax time.Duration `yaml:"backoff_max" default:"3s" help:"longest wait between two attempts"`
	Dial       time.Duration `yaml:"dial" default:"2s" help:"to connect to a node"`
	Read       time.Duration `yaml:"read" default:"10s" help:"for a node's answer to anything but an upload"`
	Straggler  time.Duration `yaml:"straggler" default:"5s" help:"for the other nodes to end an upload after the first receipt"`
	Response   time.Duration `yaml:"response" default:"1m" help:"for a node's answer after the request was sent"`
	CAFile     string        `yaml:"ca_file" default:"ca.crt" help:"certificates that a node's must be signed by, and no others; a relative path starts at the configuration file's folder; system: those that this host trusts"`
}

// CASystem is the value of client.ca_file that stands for the certificates that the host trusts.
const CASystem = "system"

// Security says whether clients need TLS and access keys. They do unless all nodes are on loopback.
type Security struct {
	Insecure bool `yaml:"insecure" default:"false" help:"true: plain HTTP without access keys on addresses that other hosts reach: anyone there reads, replaces and deletes all images"`
	Always   bool `yaml:"always" default:"false" help:"true: TLS and access keys on loopback addresses, too"`
}

// TLS is the operator's own certificate for the API. Relative paths start at the working directory.
type TLS struct {
	CertFile string `yaml:"cert_file" default:"none" help:"PEM file of a certificate chain of your own for the API, read again when it changes; none: the node makes its certificate from the master key"`
	KeyFile  string `yaml:"key_file" default:"none" help:"PEM file of that certificate's key, readable by its user alone"`
}

// NoFile is the value of a setting for a file that stands for none.
const NoFile = "none"

// Report holds what the checks of a stress run ask for.
type Report struct {
	MaxStddev       Decimal       `yaml:"max_stddev" default:"0.15" min:"0" max:"100" help:"standard deviation of the nodes' shares in percentage points, by uploads and bytes, or 2.25 images where that is more"`
	MinSuccess      Decimal       `yaml:"min_success" default:"100" min:"0" max:"100" help:"percent of the uploads, and of the reads, that must succeed"`
	MaxP99          time.Duration `yaml:"max_p99" default:"1m" help:"that 99 of 100 uploads must not take longer than"`
	MinThroughput   Decimal       `yaml:"min_throughput" default:"0.2" min:"0" max:"1000000" help:"uploads a second; with a lower --rate that is enough"`
	MaxSlowdown     Decimal       `yaml:"max_slowdown" default:"20" min:"0" max:"100" help:"percent that the throughput may fall by from start to end, when the fall is beyond noise"`
	MaxNodeMemory   Bytes         `yaml:"max_node_memory" default:"512MiB" min:"1MiB" max:"1PiB" help:"peak of a node's resident memory"`
	MaxClientMemory Bytes         `yaml:"max_client_memory" default:"256MiB" min:"1MiB" max:"1PiB" help:"peak of the client's resident memory"`
	MaxGrowth       Bytes         `yaml:"max_growth" default:"64MiB" min:"0" max:"1PiB" help:"that a process's memory may grow by after its warm-up, by the lower end of the confidence interval"`
	MaxResent       Decimal       `yaml:"max_resent" default:"5" min:"0" max:"1000000" help:"percent of the needed bytes that may be sent again"`
	MinHashP        Decimal       `yaml:"min_hash_p" default:"0.01" min:"0" max:"1" help:"p value of the chi-square tests of shares and first choices"`
	MinFirstChoice  Decimal       `yaml:"min_first_choice" default:"30" min:"0" max:"100" help:"percent of the uploads that the hash's first choice must own, the bound having moved the others; chance gives 33 of three nodes"`
	MaxPause        time.Duration `yaml:"max_pause" default:"10s" help:"without an acknowledgement around a fault that the run makes"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level" default:"info" oneof:"debug,info,warn,error" help:"least severity that is logged: debug, info, warn or error"`
	Format string `yaml:"format" default:"console" oneof:"console,json" help:"form of a log line: console or json"`

	Slow time.Duration `yaml:"slow" default:"10s" min:"0s" help:"uploads and reads that take this long are logged with where their time went, a few a second; 0: none"`

	ImagesPerSecond int `yaml:"images_per_second" default:"20" min:"0" max:"1000000" help:"lines a second about images that the node has become the owner of, the others are counted; 0: none, nor its share of them"`
}

// Tracing says which requests a collector of OpenTelemetry traces is shown.
type Tracing struct {
	Endpoint string  `yaml:"endpoint" default:"none" help:"URL of a collector that takes OpenTelemetry traces by OTLP over HTTP, such as http://127.0.0.1:4318; none: nothing is traced"`
	Sample   Decimal `yaml:"sample" default:"1" min:"0" max:"1" help:"share of the requests for images that are traced, by their trace IDs, the same on every node"`
}

// NoEndpoint is the value of tracing.endpoint that stands for none.
const NoEndpoint = "none"

// APIAddr is where the node serves HTTP, as host:port.
func (n Node) APIAddr() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.APIPort)) }

// RaftAddr is where the node serves Raft, as host:port.
func (n Node) RaftAddr() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.RaftPort)) }

// Default returns the built-in configuration: three nodes on the loopback addresses.
func Default() *Config {
	cfg, err := merge() // no layers: nothing but defaults, which a test checks
	if err != nil {
		panic(err)
	}
	return cfg
}

// Node returns the node with this ID. The error is of image.KindInvalid.
func (c *Config) Node(id image.NodeID) (Node, error) {
	known := make([]string, len(c.Cluster.Nodes))
	for i, n := range c.Cluster.Nodes {
		if n.ID == id {
			return n, nil
		}
		known[i] = strconv.FormatUint(uint64(n.ID), 10)
	}
	err := image.Errorf(image.KindInvalid, "unknown node ID %d: the configuration has %s", id,
		strings.Join(known, ", ")).WithHint("give one of these IDs, or add the node to cluster.nodes")
	err.Err = ErrInvalid
	return Node{}, err
}

// DataDir returns the folder of the node with this ID.
func (c *Config) DataDir(id image.NodeID) string {
	return filepath.Clean(strings.ReplaceAll(c.Local.DataDir, "{id}", strconv.FormatUint(uint64(id), 10)))
}

// Loopback reports whether no other host reaches the nodes: all have loopback addresses, and listen on such.
func (c *Config) Loopback() bool {
	for _, n := range c.Cluster.Nodes {
		if !isLoopback(c.ListenOn(n).Host) {
			return false
		}
	}
	return c.OneHost()
}

// Secured reports whether clients need TLS and access keys, or the certificate of an administrator.
func (c *Config) Secured() bool { return !c.Security.Insecure && (c.Security.Always || !c.Loopback()) }

// Scheme returns the scheme of the addresses of the nodes' API.
func (c *Config) Scheme() string {
	if c.Secured() {
		return "https"
	}
	return "http"
}

// CAFile returns the file of the certificates that clients trust, empty for those that the host trusts.
func (c *Config) CAFile() string {
	switch file := c.Client.CAFile; {
	case file == CASystem:
		return ""
	case filepath.IsAbs(file):
		return filepath.Clean(file)
	default:
		return filepath.Join(filepath.Dir(c.File), file)
	}
}

// OpenToAll reports whether clients need nothing although other hosts reach the nodes.
func (c *Config) OpenToAll() bool { return !c.Secured() && !c.Loopback() }

// caFileDefault is the value of client.ca_file for the certificate of the cluster's own authority.
const caFileDefault = "ca.crt"

// OwnCAFile is CAFile where that is the certificate of the cluster's own authority, else empty.
func (c *Config) OwnCAFile() string {
	if c.Client.CAFile != caFileDefault {
		return ""
	}
	return c.CAFile()
}

// OwnCertificate reports whether the API has a certificate of the operator's, in the files of TLS.
func (c *Config) OwnCertificate() bool { return c.TLS.CertFile != NoFile }

// OneHost reports whether all nodes have loopback addresses, and so are on this host.
func (c *Config) OneHost() bool {
	return !slices.ContainsFunc(c.Cluster.Nodes, func(n Node) bool { return !isLoopback(n.Host) })
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(loopbackName(host))
	return err == nil && addr.IsLoopback()
}

// loopbackName gives localhost its address, so that both spellings are one host.
func loopbackName(host string) string {
	if host = strings.TrimSuffix(strings.ToLower(host), "."); host == "localhost" {
		return "127.0.0.1"
	}
	return host
}
