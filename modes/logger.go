//go:build !windows

package modes

import (
	"fmt"
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/term"
)

// newLogger returns the logger of a node's process, which writes to w. On a terminal a line has neither
// the node nor the date. The level may be changed while it is used.
func newLogger(cfg *config.Config, id image.NodeID, w io.Writer) (*zap.Logger, zap.AtomicLevel, error) {
	terminal := term.Is(fileOf(w))
	level, err := zap.ParseAtomicLevel(cfg.Log.Level)
	if err != nil {
		return nil, level, usagef("use debug, info, warn or error", "log level: %v", err)
	}
	w = printable.Writer(w)
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	node := zap.Uint32("node", uint32(id))
	if cfg.Log.Format == "console" {
		enc.EncodeLevel = func(l zapcore.Level, to zapcore.PrimitiveArrayEncoder) {
			to.AppendString(fmt.Sprintf("%-5s", l.CapitalString()))
		}
		enc.EncodeDuration = zapcore.StringDurationEncoder
		enc.ConsoleSeparator = " "
		if terminal {
			enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
			node = zap.Skip()
		}
		encoder = console{zapcore.NewConsoleEncoder(enc)}
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level)).With(node), level, nil
}

// console writes an entry whose only field is an inline object with a String method as that string.
type console struct{ zapcore.Encoder }

// Clone implements zapcore.Encoder.
func (c console) Clone() zapcore.Encoder { return console{c.Encoder.Clone()} }

// EncodeEntry implements zapcore.Encoder.
func (c console) EncodeEntry(e zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	if len(fields) == 1 && fields[0].Type == zapcore.InlineMarshalerType {
		if text, ok := fields[0].Interface.(fmt.Stringer); ok {
			e.Message = text.String()
			fields = nil
		}
	}
	return c.Encoder.EncodeEntry(e, fields)
}
