package sample

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Figure is one number that a process reports of itself.
type Figure struct {
	Name    string // in JSON; its ending is the unit
	Counter bool   // it only grows while the process runs, and its rate is what counts
	Metric  string // in /metrics, after the program's name; empty: it is not there
	ByNode  bool   // /metrics has it of each node, with the label "node"
	Help    string
}

// Unit is what a figure counts.
type Unit string

// The units. Seconds are float64, the others whole.
const (
	Bytes   Unit = "bytes"
	Seconds Unit = "s"
	Count   Unit = ""
)

// The largest values that a sample may have. What is beyond them was not measured.
const (
	BytesMax   = 1 << 60
	SecondsMax = 1e9
	CountMax   = 1 << 40
)

// Unit returns what the figure counts, by the ending of its name.
func (f Figure) Unit() Unit {
	switch {
	case strings.HasSuffix(f.Name, "_bytes"):
		return Bytes
	case strings.HasSuffix(f.Name, "_s"):
		return Seconds
	}
	return Count
}

// Max returns the largest value of the figure.
func (f Figure) Max() float64 {
	switch f.Unit() {
	case Bytes:
		return BytesMax
	case Seconds:
		return SecondsMax
	}
	return CountMax
}

// Check returns an error when v, which is not NaN, is out of the figure's bounds.
func (f Figure) Check(v float64) error {
	switch {
	case v < 0 || v > f.Max():
		return fmt.Errorf("%s is %v, not in the range 0 to %v", f.Name, v, f.Max())
	case f.Unit() != Seconds && v != math.Trunc(v):
		return fmt.Errorf("%s is %v, not a whole number", f.Name, v)
	}
	return nil
}

// Figures are the figures of one type of sample.
type Figures []Figure

// Index returns the place of the figure with this name. It panics when there is none.
func (fs Figures) Index(name string) int {
	i := slices.IndexFunc(fs, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		panic("no figure " + name)
	}
	return i
}

// Values returns the figures of a sample: of a struct, or a pointer to one, that has a field with the name
// of each in JSON, its own or that of a struct embedded in it. It panics when one has none. A bool is 0 or 1.
func (fs Figures) Values(s any) []float64 {
	v := reflect.Indirect(reflect.ValueOf(s))
	fields := map[string]reflect.Value{}
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = v.FieldByIndex(f.Index)
	}
	values := make([]float64, len(fs))
	for i, f := range fs {
		field, ok := fields[f.Name]
		switch {
		case !ok:
			panic(fmt.Sprintf("%T has no figure %s", s, f.Name))
		case field.CanInt():
			values[i] = float64(field.Int())
		case field.CanFloat():
			values[i] = field.Float()
		case field.Bool():
			values[i] = 1
		}
	}
	return values
}

// Check returns an error when one of the values of a sample is out of its figure's bounds.
func (fs Figures) Check(values []float64) error {
	for i, f := range fs {
		if err := f.Check(values[i]); err != nil {
			return err
		}
	}
	return nil
}
