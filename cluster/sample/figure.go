package sample

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Figure is one number that a process reports of itself.
type Figure struct {
	Name     string // in JSON; its ending is the unit
	Counter  bool   // it only grows while the process runs, and its rate is what counts
	Positive bool   // it is never 0: that means not known
	Metric   string // in /metrics, after the program's name; empty: it is not there
	ByNode   bool   // /metrics has it of each node, with the label "node"
	Help     string
	Report   Report
	Screen   Screen
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

// ErrRange is wrapped by the errors about values out of their bounds.
var ErrRange = errors.New("out of range")

// Check returns an error, which may be an ErrRange, when v is not a value of the figure.
func (f Figure) Check(v float64) error {
	switch {
	case f.Unit() != Seconds && v != math.Trunc(v):
		return fmt.Errorf("%s is %v, want a whole number", f.Name, v)
	case !(v >= 0 && v <= f.Max()):
		return fmt.Errorf("%s is %v, %w: 0 to %v is possible", f.Name, v, ErrRange, f.Max())
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

// fields returns the fields of a sample, a struct or a pointer to one, in the order of the figures. Each has
// the figure's name in JSON, and may be in a struct embedded in it. It panics when one is missing.
func (fs Figures) fields(s any) []reflect.Value {
	v := reflect.Indirect(reflect.ValueOf(s))
	byName := fieldsByName(v.Type())
	fields := make([]reflect.Value, len(fs))
	for i, f := range fs {
		index, ok := byName[f.Name]
		if !ok {
			panic(fmt.Sprintf("%T has no figure %s", s, f.Name))
		}
		fields[i] = v.FieldByIndex(index)
	}
	return fields
}

// fieldsByType has what fieldsByName found, by the type: a log has many samples.
var fieldsByType sync.Map

// fieldsByName returns where the fields of a struct type are, by their names in JSON.
func fieldsByName(t reflect.Type) map[string][]int {
	if known, ok := fieldsByType.Load(t); ok {
		return known.(map[string][]int)
	}
	byName := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		byName[name] = f.Index
	}
	fieldsByType.Store(t, byName)
	return byName
}

// Values returns the figures of a sample. A bool is 0 or 1.
func (fs Figures) Values(s any) []float64 {
	values := make([]float64, len(fs))
	for i, field := range fs.fields(s) {
		switch {
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

// Set gives the figures of a sample, to which s points, these values.
func (fs Figures) Set(s any, values []float64) {
	for i, field := range fs.fields(s) {
		if field.CanInt() {
			field.SetInt(int64(values[i]))
		} else {
			field.SetFloat(values[i])
		}
	}
}

// Decoder reads figures from JSON objects.
type Decoder struct {
	Figures
	object reflect.Type // a struct with a *float64 for each figure
}

// NewDecoder returns a Decoder of these figures.
func NewDecoder(figures Figures) *Decoder {
	fields := make([]reflect.StructField, len(figures))
	for i, f := range figures {
		fields[i] = reflect.StructField{
			Name: fmt.Sprintf("Figure%d", i),
			Type: reflect.TypeFor[*float64](),
			Tag:  reflect.StructTag(fmt.Sprintf("json:%q", f.Name)),
		}
	}
	return &Decoder{figures, reflect.StructOf(fields)}
}

// Decode takes the values that a JSON object has, and reports which ones these are; null is none. The others
// stay as they are. The error is that of encoding/json, or names the first that is no value of its figure.
func (d *Decoder) Decode(object []byte, values []float64) (has []bool, err error) {
	in := reflect.New(d.object)
	err = json.Unmarshal(object, in.Interface())
	has = make([]bool, len(d.Figures))
	for i, f := range d.Figures {
		v := in.Elem().Field(i).Interface().(*float64)
		if v == nil {
			continue
		}
		if err == nil {
			err = f.Check(*v)
		}
		values[i], has[i] = *v, true
	}
	return has, err
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
