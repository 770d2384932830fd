package metrics

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// processMetrics shows the CPU time and memory of this process. The collector of the Prometheus library opens
// files at each scrape, which the sandbox refuses; this one reads a file that is open.
type processMetrics struct {
	statm   *os.File // nil: it could not be opened
	started time.Time
}

func (p *processMetrics) open() {
	p.started = time.Now()
	root, err := safeopen.Root("/proc/self")
	if err != nil {
		return
	}
	defer root.Close()
	if f, err := root.Open("statm"); err == nil {
		p.statm = f
	}
}

func (p *processMetrics) close() {
	if p.statm != nil {
		_ = p.statm.Close()
	}
}

func (p *processMetrics) collect(out *samples) {
	var used unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used) == nil {
		out.add(familyCPU, time.Duration(used.Nano()).Seconds())
	}
	if pages, ok := p.residentPages(); ok {
		out.add(familyMemory, float64(pages*uint64(os.Getpagesize())))
	}
	out.add(familyStart, float64(p.started.UnixMilli())/1000)
}

// residentPages reads the second number of /proc/PID/statm (proc_pid_statm() in fs/proc/array.c).
func (p *processMetrics) residentPages() (pages uint64, ok bool) {
	if p.statm == nil {
		return 0, false
	}
	var text [128]byte
	n, _ := p.statm.ReadAt(text[:], 0)
	fields := strings.Fields(string(text[:n]))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages, err == nil
}
