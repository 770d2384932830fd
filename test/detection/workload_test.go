package detection_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workloadEnv turns this test binary into a client or server process.
const workloadEnv = "TCPSHIFT_TEST_WORKLOAD"

// workload is what a client process does: it makes connections at a rate, and closes
// each after some time.
type workload struct {
	To          netip.AddrPort
	From        netip.Addr // local address, bound without a port; unset: any
	Phases      []phase
	Open        time.Duration // how long each connection stays open
	PeerCloses  bool          // read the end of the stream before closing
	NextPort    bool          // connect to another port each time, as a scan does
	SkipsMissed bool          // make no connections for the time in which the process had no CPU, instead of catching up
	UntilNoPort bool          // stop at the first connect() that finds no port
	Reset       bool          // close with a reset
	ShutDown    bool          // shut down for writing at once, and read nothing
	Linger2     int           // TCP_LINGER2, in seconds; 0: the sysctl's
	PortRange   [2]uint16     // IP_LOCAL_PORT_RANGE; 0: the sysctl's
	Name        string        // of the main thread; "": that of the program
	Cgroups     []string      // files cgroup.procs of the cgroups to enter

	// A server process instead, which runs until it is killed.
	Listen     netip.AddrPort
	NeverClose bool // it does not close when the peer does
	// NeverAccept leaves all connections in the queue, which has this Backlog. Backlog 0 is Go's.
	NeverAccept bool
	Backlog     int
	ReusePort   bool // SO_REUSEPORT

	Busy bool // none of these, but a busy loop: see runBusyLoop
}

// phase is a period with one rate; a rate of 0 is a pause.
type phase struct {
	PerSecond float64
	AtOnce    int
	For       time.Duration
}

// result is what a client process reports at its end.
type result struct {
	PID           int
	Made, Refused int
	NoPort        int
	FirstNoPort   time.Time // zero if each connect() found a port
	Other         string    // the last other error
	Began         time.Time
	Late          time.Duration // the greatest delay of a connect()
}

func runWorkload(text string) int {
	var o workload
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if o.Busy {
		if err := runBusyLoop(); err != nil {
			fmt.Fprintln(os.Stderr, "a busy loop:", err)
			return 1
		}
		return 0
	}
	if o.Listen.IsValid() {
		fmt.Fprintln(os.Stderr, o.serve())
		return 1
	}
	if err := o.become(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a := result{PID: os.Getpid(), Began: time.Now()}
	o.run(&a)
	if err := json.NewEncoder(os.Stdout).Encode(&a); err != nil {
		return 1
	}
	return 0
}

// become enters the cgroups and takes the name of a service.
func (o *workload) become() error {
	for _, procs := range o.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return err
		}
	}
	if o.Name == "" {
		return nil
	}
	return os.WriteFile("/proc/self/comm", []byte(o.Name), 0)
}

type opened struct {
	fd    int
	until time.Time
}

// maxCatchUp is how much of its time a workload that SkipsMissed makes up for.
const maxCatchUp = 100 * time.Millisecond

func (o *workload) run(a *result) {
	var open []opened
	next := time.Now()
	for _, g := range o.Phases {
		end := next.Add(g.For)
		if g.PerSecond == 0 {
			time.Sleep(time.Until(end))
			next = end
		}
		for g.PerSecond > 0 && next.Before(end) && (!o.UntilNoPort || a.NoPort == 0) {
			time.Sleep(time.Until(next))
			late := time.Since(next)
			if a.Late = max(a.Late, late); o.SkipsMissed && late > maxCatchUp {
				next = next.Add(late)
			}
			for range max(1, g.AtOnce) {
				if fd := o.connect(a); fd >= 0 {
					open = append(open, opened{fd, time.Now().Add(o.Open)})
				}
			}
			for len(open) > 0 && !open[0].until.After(time.Now()) {
				o.close(open[0].fd)
				open = open[1:]
			}
			next = next.Add(time.Duration(float64(max(1, g.AtOnce)) / g.PerSecond * float64(time.Second)))
		}
	}
	for _, left := range open {
		o.close(left.fd)
	}
}

func (o *workload) connect(a *result) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil && o.From.IsValid() {
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: o.From.As4()})
	}
	if err == nil && o.Linger2 > 0 {
		err = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_LINGER2, o.Linger2)
	}
	if err == nil && o.PortRange[1] > 0 {
		const ipLocalPortRange = 51 // include/uapi/linux/in.h
		err = unix.SetsockoptInt(fd, unix.SOL_IP, ipLocalPortRange, int(o.PortRange[1])<<16|int(o.PortRange[0]))
	}
	if err == nil {
		to := &unix.SockaddrInet4{Port: int(o.To.Port()), Addr: o.To.Addr().As4()}
		if o.NextPort {
			to.Port = 1 + (to.Port+a.Made+a.Refused)%60000
		}
		for err = unix.Connect(fd, to); errors.Is(err, unix.EINTR); {
			err = unix.Connect(fd, to)
		}
	}
	switch {
	case err == nil:
		a.Made++
		if o.ShutDown {
			_ = unix.Shutdown(fd, unix.SHUT_WR)
		}
		return fd
	case errors.Is(err, unix.EADDRNOTAVAIL):
		if a.NoPort == 0 {
			a.FirstNoPort = time.Now()
		}
		a.NoPort++
	case errors.Is(err, unix.ECONNREFUSED):
		a.Refused++
	default:
		a.Other = err.Error()
	}
	unix.Close(fd)
	return -1
}

func (o *workload) close(fd int) {
	if o.PeerCloses {
		_, _ = unix.Read(fd, make([]byte, 1))
	}
	if o.Reset {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(fd)
}

// neverClosed keeps connections reachable: the garbage collector would close them.
var neverClosed []net.Conn

func (o *workload) listen() (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if o.ReusePort {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "tcp4", o.Listen.String())
	if err != nil || o.Backlog == 0 {
		return l, err
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil { // listen() again sets another backlog
		_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), o.Backlog) })
	}
	return l, err
}

func (o *workload) serve() error {
	l, err := o.listen()
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		if o.NeverAccept {
			time.Sleep(time.Hour)
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if o.NeverClose {
			neverClosed = append(neverClosed, c)
			continue
		}
		go func() {
			_, _ = c.Read(make([]byte, 1))
			c.Close()
		}()
	}
}
