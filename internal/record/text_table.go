package record

import (
	"math"
	"slices"
)

// columnID identifies a column of the text format. Several tables share columns.
type columnID uint8

const (
	columnTime columnID = iota
	columnPID
	columnComm
	columnLocal
	columnPeer
	columnOld
	columnNew
	columnRole
	columnNetns
	columnError
	columnEnded
	columnDuration
	columnTX
	columnRX
	columnRetrans
	columnRTT
	columnEndedBy
	columnState
	columnReceiveQueue
	columnSendQueue
	columnExpires
	columnCount
)

// columns has the title and the full width of each column, in cells of a terminal. short
// replaces a title that is wider than its column.
var columns = [columnCount]struct {
	title, short string
	width        int
	right        bool // aligned to the right
}{
	columnTime:     {title: "TIME(UTC)", short: "TIME", width: len("15:04:05.000000")},
	columnPID:      {title: "PID", width: len("4194304")}, // PID_MAX_LIMIT
	columnComm:     {title: "COMM", width: 15},            // TASK_COMM_LEN without its NUL
	columnLocal:    {title: "LOCAL", width: len("255.255.255.255:65535")},
	columnPeer:     {title: "PEER", width: len("255.255.255.255:65535")},
	columnOld:      {title: "OLD", width: len("ESTABLISHED")},
	columnNew:      {title: "NEW", width: len("ESTABLISHED")},
	columnRole:     {title: "ROLE", width: len("listener")},
	columnNetns:    {title: "NETNS", width: len("4294967295")},
	columnError:    {title: "ERROR", width: len("ECONNREFUSED")},
	columnEnded:    {title: endedMark, width: len(endedMark)},
	columnDuration: {title: "DURATION", width: 8, right: true},
	columnTX:       {title: "TX", width: len("1023B"), right: true},
	columnRX:       {title: "RX", width: len("1023B"), right: true},
	columnRetrans:  {title: "RETRANS", short: "RETR", width: 7, right: true},
	columnRTT:      {title: "RTT", width: len("1.23ms"), right: true},
	columnEndedBy:  {title: "ENDED-BY", width: len("reset_received")},
	columnState:    {title: "STATE", width: len("NEW_SYN_RECV")},
	columnExpires:  {title: "EXPIRES", width: 7},

	columnReceiveQueue: {title: "RECV-Q", width: len("RECV-Q"), right: true}, // as ss calls them
	columnSendQueue:    {title: "SEND-Q", width: len("SEND-Q"), right: true},
}

// endedMark stands in the row of a connection where a transition has its old state. It is
// not the name of a state.
const endedMark = "ENDED"

// liveMark stands there in the row of an update.
const liveMark = "LIVE"

// The order of the columns. Transitions and connections begin with the same columns, so
// that they can share a stream.
var (
	commonOrder     = []columnID{columnTime, columnPID, columnComm, columnLocal, columnPeer}
	transitionOrder = slices.Concat(commonOrder, []columnID{columnOld, columnNew, columnRole, columnNetns, columnError})
	measureOrder    = []columnID{columnDuration, columnTX, columnRX, columnRetrans, columnRTT, columnEndedBy}
	connectionOrder = slices.Concat(commonOrder, measureOrder)
	markedOrder     = slices.Concat(commonOrder, []columnID{columnEnded}, measureOrder)
	socketOrder     = []columnID{
		columnState, columnRole, columnNetns, columnPID, columnComm, columnLocal, columnPeer, columnReceiveQueue, columnSendQueue, columnExpires,
	}
)

// shrinkSteps are taken in order until the rows fit the terminal. docs/output.md lists
// them.
var shrinkSteps = []struct {
	ids     []columnID
	width   int  // of these columns after the step; 0 removes them
	gradual bool // the step takes only as much as is needed
}{
	{ids: []columnID{columnReceiveQueue, columnSendQueue}},
	{ids: []columnID{columnNetns}},
	{ids: []columnID{columnRole}},
	{ids: []columnID{columnTime}, width: len("15:04:05.000")},
	{ids: []columnID{columnRetrans}, width: len("RETR")},
	{ids: []columnID{columnComm}, width: 10, gradual: true},
	{ids: []columnID{columnLocal}, width: minSharedWidth, gradual: true},
	{ids: []columnID{columnPeer}, width: 18, gradual: true},
	{ids: []columnID{columnComm}, width: 8, gradual: true},
	{ids: []columnID{columnRTT}},
	{ids: []columnID{columnRetrans}},
	{ids: []columnID{columnLocal}, width: 1 + len(":65535"), gradual: true}, // with the ellipsis
	{ids: []columnID{columnError}},
	{ids: []columnID{columnTime}, width: len("15:04:05")},
	{ids: []columnID{columnEndedBy}, width: 10, gradual: true},
	{ids: []columnID{columnPeer}, width: 14, gradual: true},
	{ids: []columnID{columnTX, columnRX}},
}

// unlimited is the width of an output that is not a terminal.
const unlimited = math.MaxInt32

// table has the positions of the columns in one kind of row.
type table struct {
	order []columnID
	width [columnCount]int // 0: the table does not have the column
	start [columnCount]int // position of the first cell, from 0
	limit int              // the width of the terminal
	spare int              // cells left at the end of a row if no column has shrunk; a long endpoint may use them
}

func newTable(order []columnID) table {
	t := table{order: order}
	for _, id := range order {
		t.width[id] = columns[id].width
	}
	return t
}

func (t *table) total() int {
	sum := 0
	for _, id := range t.order {
		if t.width[id] > 0 {
			sum += t.width[id] + 1
		}
	}
	return sum - 1
}

// fit shrinks the table to at most limit cells, or as far as shrinkSteps go.
func (t *table) fit(limit int) {
	var before [][columnCount]int
	for _, step := range shrinkSteps {
		before = append(before, t.width)
		for _, id := range step.ids {
			over := t.total() - limit
			if over <= 0 && id == step.ids[0] {
				break
			}
			to := step.width
			if step.gradual {
				to = max(to, t.width[id]-over)
			}
			t.width[id] = min(t.width[id], to)
		}
	}
	// A step that removes a column may free more cells than needed. They go back to the
	// columns that shrank last.
	for i, step := range slices.Backward(shrinkSteps) {
		if spare := limit - t.total(); spare > 0 && step.gradual {
			id := step.ids[0]
			t.width[id] = min(t.width[id]+spare, before[i][id])
		}
	}
}

// place computes where the columns begin.
func (t *table) place(limit int) {
	at, full := 0, true
	for _, id := range t.order {
		full = full && t.width[id] == columns[id].width
		if t.width[id] > 0 {
			t.start[id] = at
			at += t.width[id] + 1
		}
	}
	t.limit = limit
	if full {
		t.spare = max(0, limit-t.total())
	}
}

// layout has the tables of a stream and of a snapshot.
type layout struct {
	transition, connection, socket table
	headers                        []*table // each with a line of titles
}

// newLayout fits the tables of the rows that the stream has into limit.
func newLayout(limit int, transitions, connections bool) *layout {
	l := &layout{
		transition: newTable(transitionOrder),
		connection: newTable(connectionOrder),
		socket:     newTable(socketOrder),
	}
	if transitions && connections {
		l.connection = newTable(markedOrder)
	}
	if connections {
		l.connection.fit(limit)
		l.headers = []*table{&l.connection}
	}
	if transitions {
		if connections {
			l.transition.shareColumns(&l.connection)
		}
		l.transition.fit(limit)
		l.connection.shareColumns(&l.transition)
		l.headers = append([]*table{&l.transition}, l.headers...)
	}
	l.socket.fit(limit)
	for _, t := range []*table{&l.transition, &l.connection, &l.socket} {
		t.place(limit)
	}
	return l
}

// shareColumns narrows the columns that both tables begin with to the widths in other.
func (t *table) shareColumns(other *table) {
	for _, id := range commonOrder {
		t.width[id] = min(t.width[id], other.width[id])
	}
}
