package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// sgr is a terminal's escape sequence for the look of what follows (ECMA-48, Select
// Graphic Rendition). Only the 8 basic colors are used: users choose how these look.
type sgr string

const (
	sgrReset     sgr = "\x1b[0m"
	sgrBold      sgr = "\x1b[1m"
	sgrDim       sgr = "\x1b[2m"
	sgrRed       sgr = "\x1b[31m"
	sgrGreen     sgr = "\x1b[32m"
	sgrYellow    sgr = "\x1b[33m"
	sgrMagenta   sgr = "\x1b[35m"
	sgrCyan      sgr = "\x1b[36m"
	sgrBoldRed   sgr = "\x1b[1;31m"
	sgrBoldGreen sgr = "\x1b[1;32m"
	sgrBoldAmber sgr = "\x1b[1;33m"
)

// stateColor returns one color for each phase of a connection, and none for an unknown
// state.
func stateColor(s tcp.State) sgr {
	switch s {
	case tcp.Listen, tcp.SynSent, tcp.SynRecv, tcp.NewSynRecv, tcp.BoundInactive:
		return sgrCyan // opening
	case tcp.Established:
		return sgrGreen
	case tcp.FinWait1, tcp.FinWait2, tcp.CloseWait, tcp.LastAck, tcp.Closing:
		return sgrYellow // closing
	case tcp.TimeWait:
		return sgrMagenta
	case tcp.Close:
		return sgrDim
	}
	return ""
}

// endColor returns a color if the connection did not end in an orderly way.
func endColor(by tcp.ClosedBy) sgr {
	switch by {
	case "", tcp.ClosedByLocal, tcp.ClosedByPeer:
		return ""
	}
	return sgrRed
}

func (r *row) paint(color sgr) {
	if r.color && color != "" {
		r.dst = append(r.dst, color...)
	}
}

func (r *row) unpaint(color sgr) {
	if r.color && color != "" {
		r.dst = append(r.dst, sgrReset...)
	}
}
