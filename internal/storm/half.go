package storm

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// halfClosed is a stub until a detector wants it.
func (w *world) halfClosed(time.Duration, uint32, []tcp.Socket) {}
