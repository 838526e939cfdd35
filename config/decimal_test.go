package config

import "testing"

func TestDecimal(t *testing.T) {
	for text, want := range map[string]Decimal{
		"0": 0, "0.15": 150, "100": 100_000, "99.9": 99_900, "0.001": 1, "123456789012.125": 123456789012125,
	} {
		d, err := ParseDecimal(text)
		if err != nil || d != want || d.String() != text {
			t.Errorf("%s is %d (%s), %v; want %d", text, d, d, err, want)
		}
		var back Decimal
		if b, err := d.MarshalText(); err != nil || back.UnmarshalText(b) != nil || back != d {
			t.Errorf("%s is read back as %s", text, back)
		}
	}
	if got := Decimal(150).Float(); got != 0.15 {
		t.Errorf("150 thousandths are %v", got)
	}
	for _, text := range []string{
		"", ".", "1.", ".5", "-1", "+1", "1e3", "0.1234", "0,15", "1 ", "NaN", "0x1", "1234567890123",
	} {
		if d, err := ParseDecimal(text); err == nil {
			t.Errorf("%q is taken as %s", text, d)
		}
	}
}
