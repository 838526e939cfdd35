package cluster

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/api"
	"imgcluster/cluster/trace"
)

// slowPerSecond bounds the lines about slow uploads and reads: where all are slow, a few tell why.
const slowPerSecond = 5

// slowLog logs the uploads and reads that took long, with where their time went.
type slowLog struct {
	than   time.Duration // 0: none
	logger *zap.Logger
}

func newSlowLog(than time.Duration, logger *zap.Logger) *slowLog {
	return &slowLog{than, atMost(slowPerSecond, logger)}
}

// atMost returns a logger of so many lines a second of each message.
func atMost(perSecond int, logger *zap.Logger, more ...zapcore.SamplerOption) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, perSecond, 0, more...)
	}))
}

func (l *slowLog) add(op trace.Op, r *trace.Request, o api.Outcome) {
	took := time.Since(r.Began)
	if l.than == 0 || took < l.than {
		return
	}
	l.logger.Warn("slow "+string(op), zap.String("image", o.User+"/"+o.Name), zap.Int64("bytes", o.Bytes),
		zap.Float64("took_s", took.Round(time.Millisecond).Seconds()), r.Times(), r.Field(), zap.Error(o.Err))
}
