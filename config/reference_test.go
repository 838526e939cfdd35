package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// referenceWidth is the longest line of REFERENCE.md.
const referenceWidth = 110

// TestReference holds REFERENCE.md to the settings. `go test ./config -run TestReference -update` remakes it.
func TestReference(t *testing.T) {
	golden(t, "REFERENCE.md", reference())
}

// referenceHead has ' for the quotes of code.
var referenceHead = strings.ReplaceAll(`# Settings

<!-- Made from the struct tags in config.go by: go test ./config -run TestReference -update -->

A setting comes from, in this order of precedence: a flag, the environment, the file, its default. Every
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
print it.
`, "'", "`")

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

// reference returns REFERENCE.md.
func reference() string {
	var out strings.Builder
	fmt.Fprintf(&out, referenceHead, formatDuration(durationMin), formatDuration(durationMax))
	section := ""
	for _, f := range fields {
		if name, _, _ := strings.Cut(f.key, "."); name != section {
			section = name
			fmt.Fprintf(&out, "\n## %s\n\n%s\n", section, sectionAbout[section])
		}
		fmt.Fprintf(&out, "\n### `%s`\n\n", f.key)
		writeWrapped(&out, f.sentence())
		out.WriteByte('\n')
		writeWrapped(&out,
			fmt.Sprintf("Type: %s. Default: `%s`. Environment: `%s`.", f.values(), f.def, f.env))
		if f.key == nodesKey {
			out.WriteString("\nEach node has:\n\n| key | type | what |\n| --- | --- | --- |\n")
			for _, nf := range nodeFields {
				fmt.Fprintf(&out, "| `%s` | %s | %s |\n", nf.key, nf.values(), nf.help)
			}
		}
	}
	return out.String()
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

// writeWrapped writes a paragraph in lines of referenceWidth.
func writeWrapped(out *strings.Builder, text string) {
	width := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
		case width+1+n > referenceWidth:
			out.WriteByte('\n')
			width = 0
		default:
			out.WriteByte(' ')
			width++
		}
		out.WriteString(word)
		width += n
	}
	out.WriteByte('\n')
}
