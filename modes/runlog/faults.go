package runlog

// Fault is the loss of a node for a time.
type Fault struct {
	TS       float64
	Node     int
	Kind     string // of the event
	Timed    bool   // TS is known
	Healed   bool   // the log says that the cluster recovered
	Unhealed bool   // or that it did not, in time or at all
}

// Made reports whether the fault was made by the run itself, which then logs its end too.
func (f Fault) Made() bool { return f.Kind == EventKill || f.Kind == EventPause || f.Kind == EventStop }

// faultEchoS is how soon, in seconds, after its kill or pause a node seen down is the same fault.
const faultEchoS = 15.0

// Faults returns when nodes were lost. A node that is killed and then seen down counts once.
func (l *Log) Faults() (list []Fault) {
	last := map[int]int{} // by node, in the list
	for _, e := range l.Events {
		at, before := last[e.Node]
		switch e.Kind {
		case EventHealed, EventUnhealed, EventLost:
			if before {
				list[at].Healed = e.Kind == EventHealed
				list[at].Unhealed = !list[at].Healed
			}
			continue
		case EventNodeDown:
			if before && e.Node != 0 && e.TS-list[at].TS <= faultEchoS {
				continue
			}
		case EventKill, EventPause, EventStop:
		default:
			continue
		}
		last[e.Node] = len(list)
		list = append(list, Fault{TS: e.TS, Timed: e.Timed, Node: e.Node, Kind: e.Kind})
	}
	return list
}

// Interval is a time from one moment to another, in seconds of the run.
type Interval struct{ FromS, ToS float64 }

// Held returns when the run let no upload begin, by time.
func (l *Log) Held() (list []Interval) {
	for _, e := range l.Events {
		switch e.Kind {
		case EventHeld:
			list = append(list, Interval{e.TS, secondsMax})
		case EventReleased:
			if len(list) > 0 {
				list[len(list)-1].ToS = e.TS
			}
		}
	}
	return list
}

// Happened counts the events of a kind.
func (l *Log) Happened(kind string) (n int64) {
	for _, e := range l.Events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}
