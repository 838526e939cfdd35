package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"imgcluster/cluster/image"
)

// fileBytesMax bounds the file: a real one has some thousand bytes.
const fileBytesMax = 1 << 20

// findFile reads the file to use and returns its path, empty when there is none.
func findFile(path string, c *collector) (string, []byte) {
	named := path != ""
	if !named {
		path = DefaultPath
	}
	data, err := readFile(path)
	switch {
	case err == nil:
		return path, data
	case !errors.Is(err, fs.ErrNotExist):
		c.fault(place{source: path}, "",
			faultf("give a readable YAML file with --config", "cannot be read: %v", reason(err)))
	case named:
		c.fault(place{source: path}, "", faultf("check the path, or leave --config out to use the built-in "+
			"configuration of three local nodes", "there is no such file"))
	}
	return "", nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("it is a folder")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err == nil && len(data) > fileBytesMax {
		err = fmt.Errorf("it has more than %s", Bytes(fileBytesMax))
	}
	return data, err
}

// reason is err without the path, which the problem names already.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// yamlReader is the strict pass over a file: it takes what the schema knows and reports the rest.
type yamlReader struct {
	*layer
	path string
	c    *collector
}

// readYAML reads the settings of a file.
func readYAML(path string, data []byte, c *collector) *layer {
	r := yamlReader{layer: newLayer(), path: path, c: c}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF): // empty, or comments only
		r.empty()
		return r.layer
	case err != nil:
		r.syntax(err, data)
		return r.layer
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		r.fault(&second, "",
			faultf("keep one document: remove what follows ---", "the file has a second document"))
	case !errors.Is(err, io.EOF):
		r.syntax(err, data)
	}
	switch {
	case len(doc.Content) != 1:
	case doc.Content[0].Tag == "!!null":
		r.empty()
	default:
		r.pairs(doc.Content[0], "", sectionNames(), r.section)
	}
	return r.layer
}

// empty reports a file without a setting. It may be cut or not filled in yet, so it does not count as the
// built-in configuration.
func (r *yamlReader) empty() {
	r.c.fault(place{source: r.path}, "", faultf("write the settings that differ, see imgcluster config show, "+
		"or remove the file to use the built-in configuration of three local nodes",
		"the file has no settings"))
}

// yamlError takes the text of a parser's error apart; the line is in it and nowhere else.
var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports an error of the YAML parser.
func (r *yamlReader) syntax(err error, data []byte) {
	at := place{source: r.path}
	message := err.Error()
	if m := yamlError.FindStringSubmatch(message); m != nil {
		at.line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	marked := bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff"))
	switch {
	case marked: // UTF-16, which the parser reads; its lines end otherwise
	case bytes.IndexByte(data, 0) >= 0:
		r.c.fault(at, "", faultf("save it as UTF-8", "the file is not plain text, or UTF-16 without a mark"))
		return
	default:
		at.line = cmp.Or(brokenLine(data), at.line)
	}
	r.c.fault(at, "", faultf("look at the indentation (spaces, no tabs), quotes and brackets at this line",
		"not valid YAML: %s", message))
}

// Beyond these sizes the parser's own line is used: brokenLine parses once for each line.
const (
	brokenLinesMax = 300
	brokenBytesMax = 16 << 10
)

// brokenLine returns the line, from 1, behind the longest run of whole lines that is valid YAML, 0 when it is
// not known. The line of the parser is where the enclosing element starts, or the one above.
func brokenLine(data []byte) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) > brokenLinesMax || len(data) > brokenBytesMax {
		return 0
	}
	end := len(data)
	for n := len(lines); n > 0; n-- {
		end -= len(lines[n-1])
		if validYAML(data[:end]) {
			return n
		}
	}
	return 0
}

func validYAML(data []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

func (r *yamlReader) fault(n *yaml.Node, key string, f *fault) {
	r.c.fault(place{source: r.path, line: n.Line}, key, f)
}

// pairs visits the entries of a mapping whose names are allowed, and reports the others.
func (r *yamlReader) pairs(
	n *yaml.Node, prefix string, allowed []string, visit func(key string, line int, value *yaml.Node),
) {
	if n.Kind != yaml.MappingNode {
		if n.ShortTag() != "!!null" { // an empty section is all defaults
			r.fault(n, strings.TrimSuffix(prefix, "."),
				faultf("write entries such as "+allowed[0]+": ..., one a line",
					"wants a section, got %s", describe(n)))
		}
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		value := n.Content[i+1]
		key := prefix + plain(name.Value)
		switch {
		case name.Kind != yaml.ScalarNode:
			r.fault(name, strings.TrimSuffix(prefix, "."),
				faultf("write a name, a colon and a value", "has %s for a key", describe(name)))
		case !slices.Contains(allowed, name.Value):
			r.fault(name, key, faultf(suggestKey(name.Value, prefix, allowed), "unknown key"))
		case seen[name.Value] > 0:
			r.fault(name, key,
				faultf("remove one of the two", "is set twice, first in line %d", seen[name.Value]))
		case value.Kind == yaml.AliasNode:
			r.fault(value, key, faultf("write the value out", "aliases are not supported"))
		default:
			visit(key, name.Line, value)
		}
		if name.Kind == yaml.ScalarNode && seen[name.Value] == 0 {
			seen[name.Value] = name.Line
		}
	}
}

// suggestKey looks for the key among its neighbours, then for the same name in other sections.
func suggestKey(name, prefix string, allowed []string) string {
	all := "known here: " + strings.Join(allowed, ", ")
	hint := suggest(name, allowed, all)
	if hint != all || strings.Contains(prefix, "[") {
		return hint
	}
	for _, f := range fields {
		if strings.HasSuffix(f.key, "."+name) || f.key == name {
			return "did you mean " + f.key + "?"
		}
	}
	return hint
}

func sectionNames() []string {
	var names []string
	for _, f := range fields {
		if name, _, _ := strings.Cut(f.key, "."); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// section reads one section of settings.
func (r *yamlReader) section(section string, _ int, n *yaml.Node) {
	var names []string
	for _, f := range fields {
		if name, ok := strings.CutPrefix(f.key, section+"."); ok {
			names = append(names, name)
		}
	}
	r.pairs(n, section+".", names, func(key string, line int, value *yaml.Node) {
		r.places[key] = place{source: r.path, line: line}
		if key == nodesKey {
			r.nodes(value)
			return
		}
		if v, f := scalar(byKey[key], value); f != nil {
			r.fault(value, key, f)
		} else {
			r.values[key] = v
		}
	})
}

// nodesMax bounds the list of nodes.
const nodesMax = image.NodesMax

// nodes reads the list of nodes. A node with a problem stays in the list, so that the others are
// still compared with each other.
func (r *yamlReader) nodes(n *yaml.Node) {
	switch {
	case n.Kind != yaml.SequenceNode:
		r.fault(n, nodesKey,
			faultf("write one - {id: 1, host: 10.40.45.206, api_port: 8001, raft_port: 9001} a line",
				"wants a list of nodes, got %s", describe(n)))
		return
	case len(n.Content) < 1 || len(n.Content) > nodesMax:
		r.fault(n, nodesKey, countFault(len(n.Content)))
		return
	}
	nodes := make([]Node, len(n.Content))
	for i, item := range n.Content {
		r.node(&nodes[i], fmt.Sprintf("%s[%d]", nodesKey, i), item)
	}
	r.values[nodesKey] = nodes
}

func countFault(n int) *fault {
	return faultf("three nodes tolerate the loss of any one",
		"%d nodes are not in the range 1 to %d", n, nodesMax)
}

func (r *yamlReader) node(node *Node, prefix string, n *yaml.Node) {
	r.places[prefix] = place{source: r.path, line: n.Line}
	if n.Kind != yaml.MappingNode {
		r.fault(n, prefix, faultf("write {id: 1, host: 10.40.45.206, api_port: 8001, raft_port: 9001}",
			"wants a node, got %s", describe(n)))
		return
	}
	var names []string
	for _, f := range nodeFields {
		names = append(names, f.key)
	}
	missing := slices.Clone(names)
	r.pairs(n, prefix+".", names, func(key string, line int, value *yaml.Node) {
		i := slices.Index(names, strings.TrimPrefix(key, prefix+"."))
		r.places[key] = place{source: r.path, line: line}
		missing[i] = ""
		if v, f := scalar(nodeFields[i], value); f != nil {
			r.fault(value, key, f)
		} else {
			node.set(nodeFields[i], v)
		}
	})
	for i, name := range missing {
		if key := prefix + "." + name; name != "" && !r.c.bad[key] {
			r.fault(n, key, faultf("add "+name+": "+nodeFields[i].example(), "is missing"))
		}
	}
}

// yamlKinds are YAML's types in words.
var yamlKinds = map[string]string{
	"!!str": "text", "!!int": "a number", "!!float": "a number", "!!bool": "true or false",
	"!!null": "nothing", "!!timestamp": "a date",
	"!!map": "a section", "!!seq": "a list",
}

// describe says what a YAML value is.
func describe(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode {
		return "an alias"
	}
	kind, ok := yamlKinds[n.ShortTag()]
	switch {
	case !ok:
		return "a value of type " + plain(n.ShortTag())
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		return kind + " " + quote(n.Value)
	}
	return kind
}

// scalar reads a setting from a YAML value of the right type: no number where text belongs.
func scalar(f *field, n *yaml.Node) (any, *fault) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		return nil, faultf("for example "+f.example(), "wants %s, got %s", wants(f), describe(n))
	}
	switch kind := f.kind(); {
	case tag == "!!null":
		return nil, faultf("give one, or remove the line; for example "+f.example(), "has no value")
	case kind == "text" && tag != "!!str" && yamlKinds[tag] != "":
		return nil, faultf("put it in quotes: "+quote(n.Value), "wants text, got %s", describe(n))
	case kind == "duration" && (tag == "!!int" || tag == "!!float") && n.Value != "0":
		return nil, faultf("write "+plain(n.Value)+"s for seconds, "+plain(n.Value)+"ms for milliseconds",
			"%s has no unit", plain(n.Value))
	case kind == "switch" && tag == "!!bool":
		return f.parse(strings.ToLower(n.Value))
	case kind == "switch", kind == "number" && tag != "!!int",
		tag != "!!int" && tag != "!!float" && tag != "!!str":
		return nil, faultf("for example "+f.example(), "wants %s, got %s", wants(f), describe(n))
	}
	return f.parse(n.Value)
}

func wants(f *field) string {
	if f.typ.Kind() == reflect.Int || f.typ.Kind() == reflect.Uint32 {
		return "a whole number"
	}
	return map[string]string{
		"size": "a size", "duration": "a duration", "decimal": "a number", "text": "text",
		"switch": "true or false",
	}[f.kind()]
}
