package runlog

// Fault is the loss of a node for a time.
type Fault struct {
	TS       float64
	Node     int
	Kind     string // of the event
	Timed    bool   // TS is known
	Healed   bool   // the log says that the cluster recovered
	Unhealed bool   // the log says that the cluster did not recover, in time or at all
}

// Made reports whether the fault was made by the run itself, which then logs its end too.
func (f Fault) Made() bool { return f.Kind == EventKill || f.Kind == EventPause || f.Kind == EventStop }

// faultEchoS is for how long after its kill or pause, in seconds, a node that is seen down is the same fault.
const faultEchoS = 15.0

// Faults returns when nodes were lost. A node that is killed and then seen down counts once.
func (l *Log) Faults() []Fault {
	var list []Fault
	latest := map[int]int{} // by node, in the list
	for _, e := range l.Events {
		i, known := latest[e.Node]
		switch e.Kind {
		case EventHealed, EventUnhealed, EventLost:
			if known {
				list[i].Healed = e.Kind == EventHealed
				list[i].Unhealed = !list[i].Healed
			}
			continue
		case EventNodeDown:
			if known && e.Node != 0 && e.TS-list[i].TS <= faultEchoS {
				continue
			}
		case EventKill, EventPause, EventStop:
		default:
			continue
		}
		latest[e.Node] = len(list)
		list = append(list, Fault{TS: e.TS, Timed: e.Timed, Node: e.Node, Kind: e.Kind})
	}
	return list
}

// Interval is a time from one moment to another, in seconds of the run.
type Interval struct{ FromS, ToS float64 }

// Held returns when the run let no upload start, in order of time.
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

// CountEvents returns the number of events of a kind.
func (l *Log) CountEvents(kind string) (n int64) {
	for _, e := range l.Events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}
