package tcp

import "time"

// Process describes a process that owns sockets. What is not known is zero.
type Process struct {
	PID       uint32        // in the initial pid namespace
	Comm      Comm          // of its main thread
	StartedAt time.Duration // CLOCK_BOOTTIME, to 10 ms
	Started   time.Time     // the same moment on the wall clock; set by the trace loop
	Exe       string        // path of the executable, in the process's mount namespace
	Args      []string      // the arguments, without secrets
	ArgsCut   bool          // Args lacks some
	Parent    uint32        // pid; 0: not known, or none
	UID       uint32        // effective, in the initial user namespace
	UIDKnown  bool
	User      string  // name of UID on the host
	Cgroup    *Cgroup // nil: not known
}
