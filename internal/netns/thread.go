package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// maxVisitors bounds the threads that wait for the next function. More run at the same time if
// they are needed.
const maxVisitors = 2

// visitors has the threads that wait, each by the channel on which it takes a function. A new
// thread for each function would end this process as soon as the host can start none, because a
// user has filled its table of processes: see package threads.
var visitors = make(chan chan func(), maxVisitors)

// onOwnThread starts f on a thread that may change its network namespace, and on which no other
// goroutine runs meanwhile. Afterwards the thread returns to the namespace of the process, or
// ends.
func onOwnThread(f func()) {
	select {
	case tasks := <-visitors:
		tasks <- f
	default:
		go visit(f)
	}
}

// visit does not use the first thread of the process: if it could not return, that thread would
// not end, and /proc/PID/ns shows its namespace as that of the process.
func visit(f func()) {
	runtime.LockOSThread() // unlocked only in the namespace of the process; else the thread ends with this goroutine
	if unix.Gettid() == unix.Getpid() {
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			visitAll(f)
		}()
		<-locked // until then this goroutine occupies the first thread
		runtime.UnlockOSThread()
		return
	}
	visitAll(f)
}

// visitAll runs functions on the calling thread, which is locked, until as many others wait.
func visitAll(f func()) {
	home, err := openHome()
	if err != nil {
		f() // and the thread ends
		return
	}
	defer home.Close()
	tasks := make(chan func())
	for {
		f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) != nil {
			return
		}
		select {
		case visitors <- tasks:
			f = <-tasks
		default:
			runtime.UnlockOSThread()
			return
		}
	}
}

// openHome opens the namespace of the calling thread.
func openHome() (*os.File, error) {
	inode, err := safeopen.NetnsInode("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return safeopen.Netns(fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid()), inode)
}
