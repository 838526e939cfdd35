package wire

// LogLevel is the least severity that a node logs.
type LogLevel struct {
	Node  uint32 `json:"node,omitempty"`
	Level string `json:"level"` // one of LogLevels
}

// LogLevels are those that a node may log at, as the setting log.level.
var LogLevels = []string{"debug", "info", "warn", "error"}
