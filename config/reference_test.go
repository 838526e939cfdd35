package config

import (
	"fmt"
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

// TestReferenceIsComplete: every setting and every section has its words.
func TestReferenceIsComplete(t *testing.T) {
	var keys []string
	for _, section := range Reference() {
		if section.About == "" {
			t.Errorf("nothing is said of the section %s", section.Name)
		}
		for _, e := range section.Settings {
			keys = append(keys, e.Key)
			if e.About == "" || e.Values == "" || e.Default == "" || e.Env == "" {
				t.Errorf("something is missing: %+v", e)
			}
		}
	}
	for i, s := range Default().Settings() {
		if i >= len(keys) || keys[i] != s.Key {
			t.Errorf("the reference lacks %s", s.Key)
		}
	}
}

func TestChoices(t *testing.T) {
	for key, want := range map[string]string{
		"log.level":         "debug info warn error",
		"security.insecure": "true false",
		"cluster.replicas":  "",
		"no.setting":        "",
	} {
		if got := strings.Join(Choices(key), " "); got != want {
			t.Errorf("%s takes %q, not %q", key, got, want)
		}
	}
}

// reference returns REFERENCE.md.
func reference() string {
	var out strings.Builder
	out.WriteString("# Settings\n\n" +
		"<!-- Made from the struct tags in config.go by: go test ./config -run TestReference -update -->\n\n" +
		Introduction() + "\n")
	for _, section := range Reference() {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", section.Name, section.About)
		for _, e := range section.Settings {
			fmt.Fprintf(&out, "\n### `%s`\n\n", e.Key)
			writeWrapped(&out, e.About)
			out.WriteByte('\n')
			writeWrapped(&out, fmt.Sprintf("Type: %s. Default: `%s`. Environment: `%s`.", e.Values, e.Default, e.Env))
			if e.Each == nil {
				continue
			}
			out.WriteString("\nEach node has:\n\n| key | type | what |\n| --- | --- | --- |\n")
			for _, of := range e.Each {
				fmt.Fprintf(&out, "| `%s` | %s | %s |\n", of.Key, of.Values, of.About)
			}
		}
	}
	return out.String()
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
