package config

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setting is one setting as it is shown to users.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // in the text form that flags and environment take
	// "default", "file imgcluster.yaml:12", "env IMGCLUSTER_...", "flag --..."
	Origin      string `json:"origin"`
	Default     string `json:"default"`
	Type        string `json:"type"` // text, switch, number, decimal, size, duration or nodes
	Env         string `json:"env"`
	Description string `json:"description"`
}

// Settings lists all settings, section by section. Default().Settings() is the reference of them.
func (c *Config) Settings() []Setting {
	v := reflect.ValueOf(c).Elem()
	list := make([]Setting, len(fields))
	for i, f := range fields {
		list[i] = Setting{
			Key: f.key, Value: format(v.FieldByIndex(f.index)), Origin: c.origin(f.key),
			Default: f.def, Type: f.kind(), Env: f.env, Description: f.help,
		}
	}
	return list
}

// Shared returns the settings that all nodes of a cluster should have the same, by key. The list of
// nodes is not among them: a cluster that grew has members that are in no file.
func (c *Config) Shared() map[string]string {
	shared := map[string]string{}
	for _, s := range c.Settings() {
		switch section, _, _ := strings.Cut(s.Key, "."); section {
		case "node", "client", "tls", "log", "tracing":
		default:
			shared[s.Key] = s.Value
		}
	}
	delete(shared, nodesKey)
	return shared
}

func (c *Config) origin(key string) string {
	switch p := c.places[key]; {
	case p == place{}:
		return "default"
	case p.line > 0:
		return "file " + p.source + ":" + strconv.Itoa(p.line)
	default:
		return p.source
	}
}

// YAML returns a whole file with every setting and its description, which Load reads back to the
// same configuration. An invalid configuration gives the error of Check.
func (c *Config) YAML() ([]byte, error) {
	return c.yaml("", func(*field) bool { return true })
}

// fileHead begins a file that Draft returns.
const fileHead = "Settings of imgcluster that are not the defaults; the same file on every machine.\n" +
	"All settings and what they mean: imgcluster config show --verbose"

// Draft returns a file for a new cluster: its name, copies and nodes, and what was set by flags. What the
// environment sets is left to it. An invalid configuration gives the error of Check.
func (c *Config) Draft() ([]byte, error) {
	return c.yaml(fileHead, func(f *field) bool {
		switch f.key {
		case "cluster.name", "cluster.replicas", nodesKey:
			return true
		}
		return strings.HasPrefix(c.places[f.key].source, flagSource)
	})
}

// yaml returns a file with the settings to keep.
func (c *Config) yaml(head string, keep func(*field) bool) ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	root := &yaml.Node{Kind: yaml.MappingNode, HeadComment: head}
	var section *yaml.Node
	v := reflect.ValueOf(c).Elem()
	for _, f := range fields {
		if !keep(f) {
			continue
		}
		name, key, _ := strings.Cut(f.key, ".")
		if last := len(root.Content) - 2; last < 0 || root.Content[last].Value != name {
			section = &yaml.Node{Kind: yaml.MappingNode}
			root.Content = append(root.Content, text(name), section)
		}
		label := text(key)
		value := f.yaml(v.FieldByIndex(f.index))
		if f.kind() == "nodes" {
			label.HeadComment = f.help
		} else {
			value.LineComment = f.help
		}
		section.Content = append(section.Content, label, value)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// yaml returns the setting's value as a YAML node.
func (f *field) yaml(v reflect.Value) *yaml.Node {
	switch f.kind() {
	case "nodes":
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
			for _, nf := range nodeFields {
				item.Content = append(item.Content, text(nf.key), nf.yaml(v.Index(i).FieldByIndex(nf.index)))
			}
			list.Content = append(list.Content, item)
		}
		return list
	case "number":
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: format(v)}
	case "text":
		return text(v.String())
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: format(v)} // plain: it needs no quotes
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
