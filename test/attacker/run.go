package attacker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// over is set when standard input is closed.
var over atomic.Bool

func (a *Attack) run() error {
	if a.Name != "" {
		if err := os.WriteFile("/proc/self/comm", []byte(a.Name), 0); err != nil {
			return err
		}
	}
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		over.Store(true)
		close(ended)
	}()
	if !a.Inside {
		if err := bringLoopbackUp(); err != nil {
			return err
		}
	}
	keeps, err := a.prepare()
	if err != nil {
		return err
	}
	fmt.Println("begun")
	for again := true; again && !over.Load(); again = a.Endless {
		if err := a.once(); err != nil {
			return err
		}
	}
	if keeps {
		<-ended
	}
	return nil
}

// prepare makes what stays until the end, and reports whether there is something.
func (a *Attack) prepare() (keeps bool, err error) {
	for range a.Threads {
		go func() {
			runtime.LockOSThread()
			_ = unix.Pause()
		}()
	}
	for n := range a.Listeners {
		if err := listenFull(n); err != nil {
			if errors.Is(err, unix.EMFILE) {
				break
			}
			return false, err
		}
	}
	if err := halfClose(a.HalfClosed); err != nil {
		return false, err
	}
	if a.SwapPath != "" {
		go swap(a.SwapPath)
	}
	return a.Threads+a.Listeners+a.HalfClosed > 0 || a.SwapPath != "", nil
}

// listenFull listens, and lets so many connections arrive that the queue overflows. n chooses
// the address.
func listenFull(n int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	addr := &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{127, byte(2 + n>>16), byte(n >> 8), byte(n)}}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, addr); err != nil {
		return err
	}
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	for range 2 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		_ = unix.Connect(c, addr)
	}
	return nil
}

// halfClose keeps connections in FIN_WAIT2, with their peers in CLOSE_WAIT.
func halfClose(count int) error {
	if count == 0 {
		return nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:7002") // it takes no port from the range
	if err != nil {
		return err
	}
	for range count {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		peer, err := l.Accept()
		if err != nil {
			return err
		}
		kept = append(kept, c, peer)
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
	}
	return nil
}

var kept []net.Conn

// swap lets one descriptor refer to a network namespace and to the path by turns.
func swap(path string) {
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	other, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	for !over.Load() {
		for _, fd := range []int{ns, other} {
			_ = unix.Dup3(fd, 100, unix.O_CLOEXEC)
		}
	}
}

// once does the work once.
func (a *Attack) once() error {
	for range max(1, a.Namespaces) {
		if over.Load() {
			return nil
		}
		if a.Namespaces > 0 {
			if err := unshare(); err != nil {
				return err
			}
		}
		if err := a.connectAll(); err != nil {
			return err
		}
	}
	return nil
}

// unshare moves this goroutine, and those that it starts, into a new network namespace.
func unshare() error {
	// Sockets are made by the thread of this goroutine only: see connectAll.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return bringLoopbackUp()
}

func (a *Attack) connectAll() error {
	if a.Connections == 0 {
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	if !a.Refused {
		l, err := net.Listen("tcp4", "0.0.0.0:7000")
		if err != nil {
			return err
		}
		defer l.Close()
		go resetAll(l)
	}
	each := max(1, a.Connections/max(1, a.Namespaces))
	if a.Namespaces > 0 { // other threads are in other namespaces
		for i := 0; i < each && !over.Load(); i++ {
			a.connect(i)
		}
		return nil
	}
	const parallel = 4
	var workers sync.WaitGroup
	for worker := range parallel {
		workers.Go(func() {
			for i := worker; i < each && !over.Load(); i += parallel {
				a.connect(i)
			}
		})
	}
	workers.Wait()
	return nil
}

func resetAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// connect makes a connection to the next destination and resets it.
func (a *Attack) connect(i int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	n := i / max(1, a.InARow) % max(1, a.Destinations)
	to := &unix.SockaddrInet4{Port: 7000, Addr: [4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)}}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Connect(fd, to)
}

func bringLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err == nil {
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
	}
	return err
}
