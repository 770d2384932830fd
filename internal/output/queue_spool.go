package output

const (
	// alertShare is a divisor: 1/alertShare of a spool, 5 %, is reserved for records that must not be lost.
	alertShare = 20
	// spoolEnd is the number of bytes of a spool that stay free for the records at the end of a stream.
	spoolEnd = 64 << 10
)

// spooler is an output that may have a spool.
type spooler interface {
	// spooled returns how many bytes of the spool's size are in use, and that size; 0 without a spool. It may be
	// called from any goroutine.
	spooled() (bytes, size int64)
	// onDisk is the part of bytes that is on disk by now.
	onDisk() int64
}

// spoolFull reports whether the queue and the spool together have left only the part for records that must
// not be lost. Once true, it stays true until twice that part is free.
func (q *Queue) spoolFull() bool {
	used, size := q.spooler.spooled()
	most := size - size/alertShare
	if q.spoolOut.Load() {
		most -= size / alertShare
	}
	full := used+int64(q.Waiting()) >= most
	q.spoolOut.Store(full)
	return full
}

// spoolRoom is how many bytes Put may still take before the spool is full, if waiting bytes are in the queue.
func (q *Queue) spoolRoom(waiting int) int {
	used, size := q.spooler.spooled()
	return int(max(0, size-spoolEnd-used-int64(waiting)))
}

// Spooled is the number of bytes that the output keeps on disk. ok is false if it has no spool.
func (q *Queue) Spooled() (bytes uint64, ok bool) {
	if q.spooler == nil {
		return 0, false
	}
	return uint64(q.spooler.onDisk()), true
}

// Rejected is the number of lines that the reader has refused. They count as written.
func (q *Queue) Rejected() uint64 {
	if r, can := q.out.(interface{ rejected() uint64 }); can {
		return r.rejected()
	}
	return 0
}
