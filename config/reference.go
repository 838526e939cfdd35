package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Section is what the reference says of one section of the settings. Its texts have ` around code, as
// Markdown has.
type Section struct {
	Name     string
	About    string // who reads it
	Settings []Entry
}

// Entry is what the reference says of one setting.
type Entry struct {
	Key     string // such as cluster.data_shards
	About   string // a sentence
	Values  string // its type, and the range or the choices where there are some
	Default string
	Env     string  // the variable that sets it
	Each    []Entry // of a list: the keys of each of its items, without Default and Env
}

// Introduction begins the reference: paragraphs and a list in Markdown.
func Introduction() string {
	return fmt.Sprintf(introduction, formatDuration(durationMin), formatDuration(durationMax))
}

// introduction has ' for the quotes of code.
var introduction = strings.ReplaceAll(`A setting comes from, in this order of precedence: a flag, the environment, the file, its default. Every
setting can be given as a flag, '--set cluster.replicas=1'. The file is 'imgcluster.yaml' in the working
directory; '--config' or 'IMGCLUSTER_CONFIG' names another. Without a file there are three nodes on
127.0.0.1. An unknown key is an error, with its line number.

'imgcluster config show --verbose' prints the settings in use and where each comes from;
'imgcluster config validate' lists everything that is wrong.

- A *size* is a whole number of bytes, with or without a unit: '64MiB', '1GB', '4096'.
- A *duration* has a unit: '500ms', '5s', '2m', '168h'; from '%s' to '%s' unless another range is given.
- A *decimal* is written with a point: '0.15'.
- A *switch* is 'true' or 'false'.

The master key itself can be given as 'IMGCLUSTER_MASTER_KEY', which takes precedence over
'node.master_key_command' and the file 'node.master_key_file'. It is never a setting: 'config show' does not
print it. Nor is the access key of a client, 'IMGCLUSTER_ACCESS_KEY' and 'IMGCLUSTER_SECRET_KEY'.`, "'", "`")

// Reference describes all settings, from their struct tags.
func Reference() []Section {
	var list []Section
	for _, f := range fields {
		if name, _, _ := strings.Cut(f.key, "."); len(list) == 0 || list[len(list)-1].Name != name {
			list = append(list, Section{Name: name, About: sectionAbout[name]})
		}
		e := Entry{Key: f.key, About: f.sentence(), Values: f.values(), Default: f.def, Env: f.env}
		if f.key == nodesKey {
			for _, nf := range nodeFields {
				e.Each = append(e.Each, Entry{Key: nf.key, About: nf.help, Values: nf.values()})
			}
		}
		last := &list[len(list)-1]
		last.Settings = append(last.Settings, e)
	}
	return list
}

// Choices returns the values that a setting takes, nil where they are too many to list, or there is no such
// setting.
func Choices(key string) []string {
	switch f := byKey[key]; {
	case f == nil:
		return nil
	case f.kind() == "switch":
		return []string{"true", "false"}
	default:
		return f.oneOf
	}
}

// sectionAbout says of each section who reads it.
var sectionAbout = map[string]string{
	"cluster":  "What all nodes must agree on.",
	"node":     "What a node has on its host. May differ from node to node.",
	"limits":   "What a node holds or accepts.",
	"timeouts": "Every wait of a node, and the periods of its regular work.",
	"repair":   "How lost copies are replaced, and stored ones are checked.",
	"raft":     "Consensus. The tick `raft.rtt` is the unit of elections and heartbeats.",
	"client":   "The client side: `put`, `get`, `stress` and the other commands.",
	"security": "Who may ask for what. The same on every node.",
	"tls":      "A certificate of your own for the API. May differ from node to node.",
	"report":   "What the checks of a stress run ask for. Each is an option of `stress` and `report` too.",
	"log":      "What a node logs, and in which form.",
	"tracing":  "Traces for a collector of OpenTelemetry. May differ from node to node.",
}

// values names the type, and the range where there is one.
func (f *field) values() string {
	switch min, max := f.rangeText(); {
	case len(f.oneOf) > 0:
		return "one of `" + strings.Join(f.oneOf, "`, `") + "`"
	case min != "" && max != "":
		return fmt.Sprintf("%s from `%s` to `%s`", f.kind(), min, max)
	case min != "":
		return fmt.Sprintf("%s, at least `%s`", f.kind(), min)
	}
	return f.kind()
}

// rangeText returns the ends of a range of its own.
func (f *field) rangeText() (low, high string) {
	show := func(n int64) string { return format(reflect.ValueOf(n).Convert(f.typ)) }
	switch f.kind() {
	case "text", "switch", "nodes":
		return "", ""
	case "duration":
		if f.min == int64(durationMin) && f.max == int64(durationMax) {
			return "", ""
		}
	}
	if f.max == 1<<63-1 {
		return show(f.min), ""
	}
	return show(f.min), show(f.max)
}

// sentence makes the description a sentence: "for an upload" of a duration is "Time for an upload."
func (f *field) sentence() string {
	text := f.help
	switch first, _, _ := strings.Cut(text, " "); first {
	case "for", "that", "to", "between", "without":
		text = map[string]string{"duration": "time ", "size": "bytes "}[f.kind()] + text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
